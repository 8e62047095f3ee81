// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <vector>

namespace procpool::detail {

static_assert(std::endian::native == std::endian::little, "procpool: where the lower half of an argument lies");

/// A program for the kernel that decides about each system call by its number and arguments (seccomp(2)): all are
/// allowed that no rule refuses. A call can have one rule, the first. Pointers cannot be followed, so what lies behind one decides nothing.
class seccomp_filter {
 public:
  /// Whether the lower half of an argument, as far as `mask` goes, is `value`. The kernel looks at no more of what is an
  /// int or an unsigned to it.
  struct test {
    unsigned argument;
    std::uint32_t value;
    std::uint32_t mask = ~std::uint32_t{0};
  };

  seccomp_filter() {
#if defined(__x86_64__)
    constexpr std::uint32_t native = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
    constexpr std::uint32_t native = AUDIT_ARCH_AARCH64;
#else
#error "procpool: this processor is not supported; x86-64 and arm64 are"
#endif
    // A 64-bit program can make 32-bit calls, whose numbers mean something else.
    load(offsetof(seccomp_data, arch));
    jump_if(BPF_JEQ, native, 1, 0);
    answer(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    constexpr std::uint32_t x32 = 0x40000000;  // the bit that marks another set of numbers: as if the kernel had none
    jump_if(BPF_JGE, x32, 0, 1);
    answer(refusal(ENOSYS));
#endif
  }

  void refuse(long call, int error = EPERM) {
    jump_if(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 1);
    answer(refusal(error));
  }

  /// Refuses the call unless one of the tests holds.
  void refuse_unless(long call, std::initializer_list<test> tests) {
    rule(call, tests, SECCOMP_RET_ALLOW, refusal(EPERM));
  }

  /// Refuses the call if one of the tests holds.
  void refuse_if(long call, std::initializer_list<test> tests) { rule(call, tests, refusal(EPERM), SECCOMP_RET_ALLOW); }

  /// From now on and for ever, for this thread and what it starts. Needs no_new_privs. False, with errno, if it failed.
  bool install() {
    answer(SECCOMP_RET_ALLOW);
    const sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
    return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
  }

 private:
  static constexpr std::uint32_t refusal(int error) { return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error); }

  // The number of the call is in the accumulator between rules: a rule whose call it is does not end.
  void rule(long call, std::initializer_list<test> tests, std::uint32_t if_one_holds, std::uint32_t otherwise) {
    const std::size_t jump = code_.size();
    jump_if(BPF_JEQ, static_cast<std::uint32_t>(call), 0, 0);
    for (const test& each : tests) {
      load(static_cast<std::uint32_t>(offsetof(seccomp_data, args) + each.argument * sizeof(std::uint64_t)));
      if (each.mask != ~std::uint32_t{0}) add(BPF_ALU | BPF_AND | BPF_K, each.mask);
      jump_if(BPF_JEQ, each.value, 0, 1);
      answer(if_one_holds);
    }
    answer(otherwise);
    code_[jump].jf = static_cast<std::uint8_t>(code_.size() - jump - 1);
  }

  void load(std::size_t offset) { add(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(offset)); }
  void answer(std::uint32_t value) { add(BPF_RET | BPF_K, value); }
  void jump_if(int comparison, std::uint32_t value, std::uint8_t then_skip, std::uint8_t else_skip) {
    add(BPF_JMP | comparison | BPF_K, value, then_skip, else_skip);
  }
  void add(int operation, std::uint32_t value, std::uint8_t then_skip = 0, std::uint8_t else_skip = 0) {
    code_.push_back({static_cast<std::uint16_t>(operation), then_skip, else_skip, value});
  }

  std::vector<sock_filter> code_;
};

}  // namespace procpool::detail
