// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <string>
#include <typeinfo>

namespace procpool::detail {

/// The C++ name behind a mangled one; the mangled one itself where it cannot be told.
inline std::string demangle(const char* mangled) {
  int status = 0;
  char* name = abi::__cxa_demangle(mangled, nullptr, nullptr, &status);
  std::string text = status == 0 && name != nullptr ? name : mangled;
  std::free(name);
  return text;
}

/// The C++ name of a type, for error texts.
template <class T>
std::string type_name() {
  return demangle(typeid(T).name());
}

}  // namespace procpool::detail
