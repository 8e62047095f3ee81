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

/// Whether the file may hold text. A wide one has a second buffer, behind the one that is asked about.
inline bool may_hold_text(std::FILE* file) noexcept {
#if defined(__GLIBC__)
  return file->_IO_write_ptr != file->_IO_write_base || file->_mode > 0;  // as below, without the calls
#else
  return ::__fpending(file) != 0 || std::fwide(file, 0) > 0;
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
    if (may_hold_text(file)) std::fflush(file);
  }
}

/// The same again and again, at next to no cost while the streams of C++ have the buffers that they had at first.
class standard_streams {
 public:
  void flush() const noexcept {
    if (!passes_on(out_) || !passes_on(err_) || !passes_on(log_) || may_hold_text(stdout) || may_hold_text(stderr))
      flush_standard_streams();
  }

 private:
  struct watched {
    explicit watched(const std::ostream& which)
        : stream(which), passing_on(may_hold_text(which) ? nullptr : which.rdbuf()) {}
    const std::ios& stream;
    const std::streambuf* const passing_on;  ///< the buffer that keeps nothing
  };
  static bool passes_on(const watched& each) noexcept { return each.stream.rdbuf() == each.passing_on; }

  const watched out_{std::cout};
  const watched err_{std::cerr};
  const watched log_{std::clog};
};

}  // namespace procpool::detail
