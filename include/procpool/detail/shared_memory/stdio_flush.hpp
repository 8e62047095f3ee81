// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <stdio_ext.h>

#include <cstdio>
#include <cwchar>
#include <iostream>
#include <typeinfo>

#if defined(__GLIBCXX__)
#include <ext/stdio_sync_filebuf.h>
#endif

namespace procpool::detail {

/// Whether the stream may hold text that is not in the buffers of stdio: those that have not been taken apart from it
/// (`std::ios::sync_with_stdio`) pass on each character. Costs nothing beside a flush, which comes after every task.
inline bool may_hold_text(const std::ostream& stream) noexcept {
  const std::streambuf* const buffer = stream.rdbuf();
#if defined(__GLIBCXX__)
  return buffer != nullptr && typeid(*buffer) != typeid(__gnu_cxx::stdio_sync_filebuf<char>);
#else
  return buffer != nullptr;
#endif
}

/// Writes out what lies in the buffers of stdout and stderr, so that a fork does not double it and a death not lose it.
inline void flush_standard_streams() noexcept {
  try {
    for (std::ostream* stream : {&std::cout, &std::cerr, &std::clog}) {
      if (may_hold_text(*stream)) stream->flush();
    }
  } catch (...) {  // the application asked its streams to throw; there is no one to tell
  }
  for (std::FILE* file : {stdout, stderr}) {
    // A wide file has a second buffer, behind the one that is asked about.
    if (::__fpending(file) != 0 || std::fwide(file, 0) > 0) std::fflush(file);
  }
}

}  // namespace procpool::detail
