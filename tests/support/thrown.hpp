// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <exception>
#include <future>
#include <stdexcept>
#include <string>

namespace support {

/// The error of that type that a call throws. Another error goes on to the test, which then fails.
template <class Error, class Call>
Error thrown_by(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error;
  }
  throw std::runtime_error("nothing was thrown");
}

/// The text of the error of that type that a call throws.
template <class Error, class Call>
std::string text_of(Call call) {
  return thrown_by<Error>(call).what();
}

/// Whether a call ends in the logic_error of what belongs to another process, rather than in one of a future without a
/// state.
template <class Call>
bool refuses(Call call) {
  try {
    call();
  } catch (const std::future_error&) {
  } catch (const std::logic_error&) {
    return true;
  }
  return false;
}

template <class Error>
Error held_by(const std::exception_ptr& error) {
  return thrown_by<Error>([&] { std::rethrow_exception(error); });
}

}  // namespace support
