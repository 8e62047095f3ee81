// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <system_error>

namespace instructions {

/// A child that runs one instruction at a time (`ptrace(2)`). It shares this process's code, at the same addresses.
class stepped_process {
 public:
  template <class Body>
  explicit stepped_process(Body body) {
    pid_ = ::fork();
    if (pid_ < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (pid_ == 0) {
      if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(refused);
      ::raise(SIGSTOP);
      body();
      ::_exit(EXIT_FAILURE);
    }
    wait();
    if (exited_with(refused)) throw std::runtime_error("this system refuses ptrace(2), which the test needs");
    request(PTRACE_SETOPTIONS, PTRACE_O_EXITKILL);
  }
  stepped_process(const stepped_process&) = delete;
  stepped_process& operator=(const stepped_process&) = delete;
  ~stepped_process() {
    if (!alive_) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &status_, __WALL);
  }

  bool alive() const noexcept { return alive_; }
  bool exited_with(int status) const noexcept {
    return !alive_ && WIFEXITED(status_) && WEXITSTATUS(status_) == status;
  }
  std::string end() const {
    return WIFEXITED(status_) ? "exited with status " + std::to_string(WEXITSTATUS(status_))
                              : "ended by signal " + std::to_string(WTERMSIG(status_));
  }

  /// One instruction: of a system call, all of it.
  void step() {
    request(PTRACE_SINGLESTEP, pending_);
    wait();
  }

  /// At full speed up to the next breakpoint(), or to behind a write to what is watched.
  void run() {
    request(PTRACE_CONT, pending_);
    wait();
    if (alive_ && pending_ != 0) throw std::runtime_error("the process stopped for signal " + std::to_string(pending_));
  }
  static void breakpoint() noexcept { asm volatile("int3"); }

  /// From now on run() stops behind each instruction that writes to one of these words, at most four.
  void watch(std::initializer_list<const void*> words) {
    unsigned long control = 0;
    std::size_t i = 0;
    for (const void* word : words) {
      // Register i holds the address; in register 7: enabled, on writes (01), of four bytes (11).
      debug_register(i, reinterpret_cast<unsigned long>(word));
      control |= 1UL << (2 * i) | 0b1101UL << (16 + 4 * i);
      ++i;
    }
    debug_register(7, control);
  }

  /// The address of the instruction that comes next.
  std::uintptr_t next_instruction() const {
    user_regs_struct registers{};
    request(PTRACE_GETREGS, 0, &registers);
    return registers.rip;
  }

  /// Whether the next instruction makes it sleep on a futex until somebody wakes it.
  bool about_to_sleep() const {
    user_regs_struct registers{};
    request(PTRACE_GETREGS, 0, &registers);
    constexpr unsigned char syscall_instruction[] = {0x0f, 0x05};
    if (registers.rax != SYS_futex || std::memcmp(reinterpret_cast<const void*>(registers.rip), syscall_instruction,
                                                  sizeof(syscall_instruction)) != 0) {
      return false;
    }
    const auto* const word = reinterpret_cast<const std::atomic<std::uint32_t>*>(registers.rdi);
    return word->load() == static_cast<std::uint32_t>(registers.rdx);
  }

 private:
  static constexpr int refused = 77;

  void debug_register(std::size_t i, unsigned long value) const {
    const std::size_t at = offsetof(user, u_debugreg) + i * sizeof(value);
    if (::ptrace(PTRACE_POKEUSER, pid_, reinterpret_cast<void*>(at), reinterpret_cast<void*>(value)) != 0) {
      throw std::system_error(errno, std::generic_category(), "ptrace: debug registers, which the test needs");
    }
  }

  void request(__ptrace_request what, long data, void* out = nullptr) const {
    void* const argument = out != nullptr ? out : reinterpret_cast<void*>(data);
    if (::ptrace(what, pid_, nullptr, argument) != 0) {
      throw std::system_error(errno, std::generic_category(), "ptrace");
    }
  }

  void wait() {
    if (::waitpid(pid_, &status_, __WALL) != pid_) throw std::system_error(errno, std::generic_category(), "waitpid");
    alive_ = WIFSTOPPED(status_);
    pending_ = 0;
    // What is not a step goes on to the process, as if nobody looked.
    if (alive_ && WSTOPSIG(status_) != SIGTRAP && WSTOPSIG(status_) != SIGSTOP) pending_ = WSTOPSIG(status_);
  }

  pid_t pid_ = -1;
  int status_ = 0;
  int pending_ = 0;
  bool alive_ = true;
};

}  // namespace instructions
