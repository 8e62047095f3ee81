// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

// ---- worker side: what a fatal signal runs --------------------------------------------------------------------------
// Everything here is called in a signal handler, in whatever state the code of the user has left the process: only what
// is async-signal-safe (signal-safety(7)) is used. The unwinder of libgcc is not in that list; it takes no lock where glibc
// has _dl_find_object (2.35), it has been called once before, and a fault or a hang in it ends the process all the same.

/// What the handler needs, set before it is installed.
struct crash_site {
  crash_record* record = nullptr;  ///< in the worker's lane
  pid_t process = 0;               ///< a process that a task has forked has no lane
  std::atomic_flag taken{};        ///< by the first thread that crashes
};
inline constinit crash_site process_crash_site{};

struct frame_walk {
  crash_record* record;
  std::uintptr_t origin;  ///< where the signal came; frames above it are the handler's
  bool begun = false;
  std::uint32_t count = 1;
};

inline std::uintptr_t interrupted_at(const ucontext_t& context) noexcept {
#if defined(__x86_64__)
  return static_cast<std::uintptr_t>(context.uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return static_cast<std::uintptr_t>(context.uc_mcontext.pc);
#endif
}

inline _Unwind_Reason_Code keep_frame(_Unwind_Context* context, void* argument) noexcept {
  auto& walk = *static_cast<frame_walk*>(argument);
  const auto address = static_cast<std::uintptr_t>(_Unwind_GetIP(context));
  if (!walk.begun) {
    walk.begun = address == walk.origin;
    return _URC_NO_REASON;
  }
  if (address == 0 || walk.count == crash_record::most_frames) return _URC_END_OF_STACK;
  walk.record->frames[walk.count].store(address, std::memory_order_relaxed);
  walk.record->frame_count.store(++walk.count, std::memory_order_release);
  return _URC_NO_REASON;
}

inline void write_report(crash_record& record, int signal, const siginfo_t& info, const ucontext_t& context) noexcept {
  // Of what the kernel found, not of what somebody sent.
  const bool fault =
      info.si_code > 0 && (signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE);
  const std::uintptr_t origin = interrupted_at(context);
  record.address.store(fault ? reinterpret_cast<std::uintptr_t>(info.si_addr) : 0, std::memory_order_relaxed);
  record.frames[0].store(origin, std::memory_order_relaxed);
  record.frame_count.store(1, std::memory_order_relaxed);
  record.signal.store(static_cast<std::uint32_t>(signal), std::memory_order_release);
  frame_walk walk{&record, origin};
  _Unwind_Backtrace(keep_frame, &walk);
}

/// Reports, and dies of the same signal.
inline void report_crash(int signal, siginfo_t* info, void* context) noexcept {
  struct sigaction standard{};
  standard.sa_handler = SIG_DFL;
  ::sigaction(signal, &standard, nullptr);
  if (::getpid() == process_crash_site.process && !process_crash_site.taken.test_and_set()) {
    // Should the unwinder not come back: one second, then the process ends (by SIGALRM, whose disposition is the default).
    sigset_t alarm_only;
    ::sigemptyset(&alarm_only);
    ::sigaddset(&alarm_only, SIGALRM);
    ::sigaction(SIGALRM, &standard, nullptr);
    ::sigprocmask(SIG_UNBLOCK, &alarm_only, nullptr);
    ::alarm(1);
    write_report(*process_crash_site.record, signal, *info, *static_cast<ucontext_t*>(context));
    ::alarm(0);
  }
  // Blocked until this returns, and then deadly, also where the instruction would not fault again.
  ::syscall(SYS_tgkill, ::getpid(), ::syscall(SYS_gettid), signal);
}
// ---- end of what a fatal signal runs --------------------------------------------------------------------------------

inline _Unwind_Reason_Code no_frame(_Unwind_Context*, void*) noexcept { return _URC_END_OF_STACK; }

/// Whatever the unwinder does only once, it does now. Before install_crash_handler(), in this process or one that it is
/// forked from.
inline void prepare_crash_handler() noexcept { _Unwind_Backtrace(no_frame, nullptr); }

/// Has the fatal signals report to `record` before they end this worker. On a stack of its own in the thread that calls
/// this, which runs the tasks, so that running out of stack is reported too.
inline void install_crash_handler(crash_record& record) noexcept {
  constexpr std::size_t stack_bytes = std::size_t{64} << 10;
  void* const stack = ::mmap(nullptr, stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack == MAP_FAILED) return;  // then crashes are as deadly, and less is known of them
  stack_t alternate{};
  alternate.ss_sp = stack;
  alternate.ss_size = stack_bytes;
  if (::sigaltstack(&alternate, nullptr) != 0) return;
  process_crash_site.record = &record;
  process_crash_site.process = ::getpid();
  process_crash_site.taken.clear();
  struct sigaction action{};
  action.sa_sigaction = report_crash;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP}) {
    ::sigaction(signal, &action, nullptr);
  }
}

}  // namespace procpool::detail
