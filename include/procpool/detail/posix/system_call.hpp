// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cerrno>
#include <string>
#include <system_error>

namespace procpool::detail {

/// Repeats a system call that a signal interrupted (`signal(7)`, EINTR).
template <class Call>
auto retry_on_eintr(Call call) noexcept {
  auto result = call();
  while (result == -1 && errno == EINTR) result = call();
  return result;
}

/// Throws the error that a failed system call left in errno, naming the call.
[[noreturn]] inline void throw_errno(const char* call, int error = errno) {
  throw std::system_error(error, std::generic_category(), std::string("procpool: ") + call);
}

/// Passes on the result of a system call that returns -1 when it fails; then throws std::system_error naming it.
template <class Result>
Result checked(Result result, const char* call) {
  if (result == static_cast<Result>(-1)) throw_errno(call);
  return result;
}

}  // namespace procpool::detail
