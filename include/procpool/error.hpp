// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/crash_report.hpp>
#include <procpool/detail/posix/symbols.hpp>

namespace procpool {

namespace detail {
struct error_access;  // the one maker of the errors below
}

/// What everything that procpool throws of its own derives from, but `pool_closed`.
/// Its text gives operation, place and cause: "procpool: map: task 17 of 200: worker 31337 ended by signal 11 (SIGSEGV)".
class error : public std::runtime_error {
 protected:
  explicit error(const std::string& what) : std::runtime_error(what) {}
  friend struct detail::error_access;
};

/// The worker that ran the task died, however: a signal, `abort`, `exit`, even `_exit(0)`.
class worker_crashed final : public error {
 public:
  /// The process that died.
  pid_t pid() const noexcept { return pid_; }
  /// The signal that ended it; 0 if it exited.
  int signal() const noexcept { return signal_; }
  /// Its exit status; -1 if a signal ended it.
  int exit_status() const noexcept { return exit_status_; }
  /// The address that it must not have used, or where it must not have been, if the kernel ended it for that
  /// (`sigaction(2)`, si_addr); else null, which it also is for a null pointer.
  void* fault_address() const noexcept { return report_ ? report_->fault_address : nullptr; }
  /// Where it was, innermost first: "parse(int)+0x1d (program)". Empty if its end left no trace, as by SIGKILL and exit.
  /// Names are looked up here, in the program's file: it must not have been replaced or stripped meanwhile.
  std::vector<std::string> backtrace() const {
    return report_ ? detail::describe_frames(report_->frames) : std::vector<std::string>{};
  }
  /// The most memory it held resident, in bytes, as the kernel accounted it (`getrusage(2)`, ru_maxrss).
  std::size_t max_resident_bytes() const noexcept { return max_resident_bytes_; }

 private:
  worker_crashed(const std::string& what, pid_t pid, int signal, int exit_status, std::size_t max_resident_bytes,
                 std::shared_ptr<const detail::crash_report> report = {})
      : error(what),
        pid_(pid),
        signal_(signal),
        exit_status_(exit_status),
        max_resident_bytes_(max_resident_bytes),
        report_(std::move(report)) {}
  friend struct detail::error_access;

  pid_t pid_;
  int signal_;
  int exit_status_;
  std::size_t max_resident_bytes_;
  std::shared_ptr<const detail::crash_report> report_;
};

/// The task ran past its `timeout`.
class task_timeout final : public error {
 public:
  /// How long it was allowed to run.
  std::chrono::nanoseconds limit() const noexcept { return limit_; }

 private:
  task_timeout(const std::string& what, std::chrono::nanoseconds limit) : error(what), limit_(limit) {}
  friend struct detail::error_access;

  std::chrono::nanoseconds limit_;
};

/// `cancel()` ended the task.
class task_cancelled final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// `terminate()` came before the task finished.
class pool_terminated final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// Workers cannot be started any more and none is left; the text says why.
class pool_broken final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// The constructor could not start its workers; the text says why. No process is left behind.
class worker_start_error final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// An argument or a result cannot be encoded or decoded, or what arrived is malformed.
class serialization_error : public error {
 public:
  /// The C++ name of the type that does not survive the trip.
  const std::string& type_name() const noexcept { return type_name_; }

 private:
  serialization_error(const std::string& what, std::string type_name) : error(what), type_name_(std::move(type_name)) {}
  friend struct detail::error_access;

  std::string type_name_;
};

/// A payload does not fit in the memory that the pool shares with the worker.
class out_of_shared_memory final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// The task threw a type that cannot travel; `what()` is the original's.
class remote_error : public error {
 public:
  /// The C++ name of the type that was thrown.
  const std::string& type_name() const noexcept { return type_name_; }

 private:
  remote_error(const std::string& what, std::string type_name) : error(what), type_name_(std::move(type_name)) {}
  friend struct detail::error_access;

  std::string type_name_;
};

/// The transport cannot do what was asked.
class not_supported final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// `get(duration)` or `next(duration)`: not ready in time.
class timeout_error final : public error {
  using error::error;
  friend struct detail::error_access;
};

/// Something was submitted after `close()` or `terminate()`.
class pool_closed final : public std::logic_error {
  using std::logic_error::logic_error;
  friend struct detail::error_access;
};

namespace detail {

/// The errors are the library's alone to construct; this is its key.
struct error_access {
  template <class Error, class... Args>
  static Error make(Args&&... args) {
    return Error(std::forward<Args>(args)...);
  }
};

/// Constructs an error of the library; `what` is without the leading "procpool: ".
template <class Error, class... Rest>
Error make_error(const std::string& what, Rest&&... rest) {
  return error_access::make<Error>("procpool: " + what, std::forward<Rest>(rest)...);
}

}  // namespace detail
}  // namespace procpool
