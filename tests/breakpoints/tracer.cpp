// SPDX-License-Identifier: BSL-1.0
#include "tracer.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

namespace breakpoints {
namespace {

using clock = std::chrono::steady_clock;

constexpr auto longest_hold = std::chrono::milliseconds(3);

[[noreturn]] void fail(const char* call) { throw std::system_error(errno, std::generic_category(), call); }

// A tracee may be killed at any time by someone else: then a request finds none (ESRCH), and its end is heard of later.
bool request(__ptrace_request what, pid_t id, std::uintptr_t first, std::uintptr_t second) {
  if (::ptrace(what, id, reinterpret_cast<void*>(first), reinterpret_cast<void*>(second)) == 0) return true;
  if (errno != ESRCH) fail("ptrace");
  return false;
}
bool request(__ptrace_request what, pid_t id, std::uintptr_t first, void* second) {
  return request(what, id, first, reinterpret_cast<std::uintptr_t>(second));
}

constexpr std::uintptr_t rip_offset = offsetof(user, regs) + offsetof(user_regs_struct, rip);

address program_counter(pid_t id) {
  errno = 0;
  const long value = ::ptrace(PTRACE_PEEKUSER, id, rip_offset, 0);
  return errno == 0 ? static_cast<address>(value) : 0;
}
void set_program_counter(pid_t id, address at) { request(PTRACE_POKEUSER, id, rip_offset, at); }

}  // namespace

// ---- process_memory -------------------------------------------------------------------------------------------------

process_memory::process_memory(pid_t pid)
    : fd_(::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDWR | O_CLOEXEC)) {}

process_memory::~process_memory() {
  if (fd_ >= 0) ::close(fd_);
}

// What cannot be written belongs to a process that is gone.
void process_memory::write(address at, const void* bytes, std::size_t size) const {
  if (fd_ < 0) return;
  const ssize_t written = ::pwrite(fd_, bytes, size, static_cast<off_t>(at));
  if (written < 0 && errno != ESRCH && errno != EIO) fail("write to the memory of a tracee");
  if (written > 0 && written != static_cast<ssize_t>(size)) throw std::runtime_error("breakpoints: torn write to text");
}

// ---- tracer ---------------------------------------------------------------------------------------------------------

tracer::tracer(const code& text) : text_(text) {
  ::sigset_t children;
  ::sigemptyset(&children);
  ::sigaddset(&children, SIGCHLD);
  if (::sigprocmask(SIG_BLOCK, &children, nullptr) != 0) fail("sigprocmask");
  signals_ = ::signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals_ < 0) fail("signalfd");
}

tracee& tracer::follow(pid_t process) {
  constexpr std::uintptr_t options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
  if (::ptrace(PTRACE_SEIZE, process, 0, options) != 0) fail("ptrace(PTRACE_SEIZE)");
  tracee& one = tracees_[process];
  one = {};
  one.id = one.process = process;
  one.what = role::application;
  one.memory = std::make_shared<process_memory>(process);
  return one;
}

bool tracer::wait(int fd, std::chrono::milliseconds longest) {
  const auto until = clock::now() + longest;
  for (;;) {
    int status = 0;
    pid_t id;
    while ((id = ::waitpid(-1, &status, __WALL | WNOHANG)) > 0) handle(id, status);
    resume_overdue();
    const bool holding =
        std::any_of(tracees_.begin(), tracees_.end(), [](const auto& each) { return each.second.held; });
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - clock::now()).count();
    const int patience =
        static_cast<int>(std::clamp<std::int64_t>(holding ? std::min<std::int64_t>(left, 1) : left, 0, 60'000));
    pollfd watched[] = {{signals_, POLLIN, 0}, {fd, POLLIN, 0}};
    const int ready = ::poll(watched, 2, patience);
    if (watched[0].revents != 0) {
      signalfd_siginfo ignored[8];
      while (::read(signals_, ignored, sizeof(ignored)) > 0) {
      }
    }
    if (ready > 0 && watched[1].revents != 0) return true;
    if (ready == 0 && clock::now() >= until) return false;
  }
}

void tracer::handle(pid_t id, int status) {
  const auto found = tracees_.find(id);
  if (WIFEXITED(status) || WIFSIGNALED(status)) {
    if (found != tracees_.end()) tracees_.erase(found);
    early_.erase(id);
    return;
  }
  if (!WIFSTOPPED(status)) return;
  if (found == tracees_.end()) {
    early_[id] = status;
    return;
  }
  tracee& who = found->second;
  const int event = status >> 16;
  const int signal = WSTOPSIG(status);
  if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK || event == PTRACE_EVENT_CLONE) {
    adopt(who, event);
    resume(who);
  } else if (event != 0) {
    resume(who);
  } else if (signal == SIGTRAP) {
    handle_trap(who);
  } else {
    resume(who, signal);
  }
}

void tracer::handle_trap(tracee& who) {
  siginfo_t why{};
  if (!request(PTRACE_GETSIGINFO, who.id, 0, &why)) return;
  if (why.si_code == SI_KERNEL) {
    const address at = program_counter(who.id) - 1;
    if (!text_.is_start(at)) return resume(who, SIGTRAP);
    set_program_counter(who.id, at);
    hit(who, at);
  } else if (why.si_code == TRAP_TRACE || why.si_code == TRAP_BRKPT) {  // the latter after a system call
    if (who.stepping_over != 0) who.memory->plant(std::exchange(who.stepping_over, 0));
    if (who.steps_to_go != 0 && --who.steps_to_go == 0) stepped(who);
  } else {
    return resume(who, SIGTRAP);
  }
  resume(who);
}

void tracer::resume(tracee& who, int signal) {
  const bool step = who.stepping_over != 0 || who.steps_to_go != 0;
  request(step ? PTRACE_SINGLESTEP : PTRACE_CONT, who.id, 0, static_cast<std::uintptr_t>(signal));
}

void tracer::adopt(tracee& parent, int event) {
  unsigned long message = 0;
  if (!request(PTRACE_GETEVENTMSG, parent.id, 0, &message)) return;
  const auto id = static_cast<pid_t>(message);
  if (early_.erase(id) == 0) {
    int status = 0;
    if (::waitpid(id, &status, __WALL) != id || !WIFSTOPPED(status)) return;
  }
  tracee& newborn = tracees_[id];
  newborn = {};
  newborn.id = newborn.process = id;
  if (event == PTRACE_EVENT_CLONE) {
    newborn.process = parent.process;
    newborn.what = parent.what;
    newborn.memory = parent.memory;
    resume(newborn);
    return;
  }
  if (event == PTRACE_EVENT_VFORK) {
    newborn.what = role::between;
    newborn.memory = parent.memory;
    resume(newborn);
    return;
  }
  newborn.memory = std::make_shared<process_memory>(id);
  newborn.what = parent.what == role::between ? role::zygote : parent.what == role::zygote ? role::worker : role::other;
  begin(newborn);
}

void tracer::begin(tracee& newborn) {
  switch (born(newborn)) {
    case birth::go:
      resume(newborn);
      break;
    case birth::hold:
      newborn.held = true;
      newborn.held_until = clock::now() + longest_hold;
      break;
    case birth::free:
      request(PTRACE_DETACH, newborn.id, 0, std::uintptr_t{0});
      tracees_.erase(newborn.id);
      break;
  }
}

void tracer::resume_overdue() {
  for (auto& [id, each] : tracees_) {
    if (each.held && each.held_until <= clock::now()) {
      each.held = false;
      resume(each);
    }
  }
}

void tracer::let_held_go() {
  for (auto& [id, each] : tracees_) each.held_until = clock::time_point();
  resume_overdue();
}

void tracer::free_orphans() {
  for (const auto& [id, status] : early_) {
    process_memory(id).restore_all(text_);
    request(PTRACE_DETACH, id, 0, std::uintptr_t{0});
  }
  early_.clear();
}

void tracer::kill(const tracee& which) { ::kill(which.process, SIGKILL); }

void tracer::kill_all() {
  while (!tracees_.empty() || !early_.empty()) {
    for (const auto& [id, each] : tracees_) ::kill(each.process, SIGKILL);
    for (const auto& [id, status] : early_) ::kill(id, SIGKILL);
    int status = 0;
    const pid_t id = ::waitpid(-1, &status, __WALL);
    if (id < 0 && errno != EINTR) return;
    handle(id, status);
  }
}

}  // namespace breakpoints
