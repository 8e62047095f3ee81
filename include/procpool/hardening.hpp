// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/prctl.h>
#include <sys/resource.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include <procpool/detail/hardening/landlock.hpp>
#include <procpool/detail/hardening/limits.hpp>
#include <procpool/detail/hardening/refused_calls.hpp>
#include <procpool/detail/hardening/seccomp_filter.hpp>
#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/worker_context.hpp>
#include <procpool/error.hpp>

namespace procpool {

/// What `harden_worker` takes from a worker. By default what no task needs: the memory and the processes of others.
struct hardening_options {
  /// The directories, with all below them, and files that may be read, listed and executed from now on; those of
  /// `writable` may be read, written, created and removed, but not executed. With a path in either, or `files` false, all
  /// else is refused. What tasks open late counts: programs, libraries, locales, time zones. What is open stays open.
  std::vector<std::filesystem::path> readable{};
  std::vector<std::filesystem::path> writable{};
  bool files = true;          ///< false: none but those above, also if there are none
  bool network = true;        ///< false: no new sockets, those of this machine (AF_UNIX) included; socketpair(2) works
  bool capabilities = false;  ///< true: a worker of root's keeps root's capabilities (capabilities(7))

  // setrlimit(2). Each holds for one worker, from now on to its end, and is never raised.
  std::optional<std::size_t> address_space{};      ///< bytes that it may map besides what it has: then std::bad_alloc
  std::optional<std::chrono::seconds> cpu_time{};  ///< of all its tasks together: then SIGXCPU
  std::optional<std::size_t> file_size{};          ///< bytes of each file that it writes: beyond that SIGXFSZ
  std::optional<std::size_t> open_files{};         ///< the number of descriptors: then EMFILE
  std::optional<std::size_t> core_size = 0;        ///< bytes of a core dump; 0: none is written

  bool best_effort = false;  ///< true: goes without what this kernel has not
};

namespace detail {

inline void check(const hardening_options& options) {
  if (options.cpu_time && *options.cpu_time < std::chrono::seconds(1)) {
    throw std::invalid_argument("procpool: hardening_options: cpu_time is less than a second");
  }
}

inline bool limits_files(const hardening_options& options) {
  return !options.files || !options.readable.empty() || !options.writable.empty();
}

/// `landlock_version` as landlock::version() tells it.
inline void confine_by_landlock(const hardening_options& options, int landlock_version) {
  if (landlock_version > 0) {
    const landlock_domain domain = limits_files(options)
                                       ? landlock_domain(landlock_version, options.readable, options.writable)
                                       : landlock_domain(landlock_version);
    domain.enter();
  } else if (!options.best_effort) {
    throw_errno("landlock_create_ruleset", -landlock_version);
  }
}

/// Leaves to landlock what that does better.
inline void confine_by_seccomp(const hardening_options& options, int landlock_version) {
  seccomp_filter filter;
  refuse_reaching_others(filter);
  refuse_attack_surface(filter);
  refuse_namespaces(filter);
  refuse_administration(filter);
  if (landlock_version < 6) refuse_signals(filter);
  if (limits_files(options) && landlock_version > 0 && landlock_version < 3) refuse_truncation(filter);
  if (!options.network) refuse_sockets(filter);
  if (!filter.install() && !options.best_effort) throw_errno("seccomp");
}

inline void lower_limits(const hardening_options& options) {
  if (options.address_space) {
    lower_limit(RLIMIT_AS, saturating_sum(mapped_bytes(), *options.address_space), "setrlimit RLIMIT_AS");
  }
  if (options.cpu_time) {  // SIGXCPU at the soft limit; a second later, for who has caught that, SIGKILL
    lower_limit(RLIMIT_CPU, static_cast<std::size_t>(options.cpu_time->count()), "setrlimit RLIMIT_CPU", 1);
  }
  if (options.file_size) lower_limit(RLIMIT_FSIZE, *options.file_size, "setrlimit RLIMIT_FSIZE");
  if (options.open_files) lower_limit(RLIMIT_NOFILE, *options.open_files, "setrlimit RLIMIT_NOFILE");
  if (options.core_size) lower_limit(RLIMIT_CORE, *options.core_size, "setrlimit RLIMIT_CORE");
}

inline void harden(const hardening_options& options, int landlock_version) {
  checked(::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl PR_SET_NO_NEW_PRIVS");
  confine_by_landlock(options, landlock_version);
  if (!options.capabilities) drop_capabilities();
  confine_by_seccomp(options, landlock_version);
  lower_limits(options);
}

}  // namespace detail

/// Takes from this worker, and from what it starts, what a task that has gone astray could harm others with. To be
/// called in the initializer of a pool, last, before it starts threads; nothing that is taken comes back.
/// Refused   (EPERM) the memory and the descriptors of other processes: ptrace, process_vm_writev, /proc/PID/mem,
///           pidfd_getfd; signals to any but the worker and what it has started; limits of others (prlimit); new
///           privileges (no_new_privs, so no sudo); bpf, io_uring, userfaultfd, perf_event_open, keyctl; mounts,
///           namespaces and what else administers the system; what `options` names.
/// Not       a sandbox: the task runs as the same user, shares what was open, reads what the snapshot holds, and the
///           kernel is all there. It bounds what bugs, and attacks that are not aimed at it, can reach.
/// Works     threads, fork, exec, malloc, sockets, pools inside tasks. Before Linux 6.12 a process that the worker
///           starts can send signals to nobody, itself included, but by its process group.
/// Errors    std::system_error naming the call that failed: landlock (Linux 5.13), seccomp, a path that is not there.
///           std::invalid_argument: less than a second of `cpu_time`. std::logic_error: not in a worker, or it has
///           several threads. not_supported: the worker is the application itself (`in_process`).
/// Source    seccomp(2), landlock(7), setrlimit(2), prctl(2).
inline void harden_worker(const hardening_options& options = {}) {
  detail::check(options);
  if (detail::thread_worker_context != nullptr) {
    throw detail::make_error<not_supported>("harden_worker: the tasks run in the application itself");
  }
  const detail::worker_context& worker = detail::process_worker_context;
  if (!worker.active || worker.process != detail::current_process()) {
    throw std::logic_error("procpool: harden_worker: not in a worker");
  }
  if (!detail::single_threaded()) {
    throw std::logic_error("procpool: harden_worker: the worker has several threads, and it hardens but one");
  }
  detail::harden(options, detail::landlock::version());
}

/// An initializer that hardens the worker and then calls `then`: `pool_options{.initializer = hardened({...}, setup)}`.
/// Errors   std::invalid_argument: less than a second of `cpu_time`. In the worker those of `harden_worker`.
inline std::function<void()> hardened(hardening_options options = {}, std::function<void()> then = {}) {
  detail::check(options);
  return [options = std::move(options), then = std::move(then)] {
    harden_worker(options);
    if (then) then();
  };
}

}  // namespace procpool
