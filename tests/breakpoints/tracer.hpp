// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "code.hpp"

namespace breakpoints {

/// What a process of the tree is, told by who forked it.
enum class role {
  application,  ///< the one that has the pool
  between,      ///< the short-lived child that forks the zygote and shares the application's memory
  zygote,
  worker,
  other,  ///< forked by a worker, say
};

/// The memory of a process that is traced, stopped or not.
class process_memory {
 public:
  explicit process_memory(pid_t pid);
  process_memory(const process_memory&) = delete;
  process_memory& operator=(const process_memory&) = delete;
  ~process_memory();

  void write(address at, const void* bytes, std::size_t size) const;
  void plant(address at) const { write(at, &code::breakpoint, 1); }
  void restore(const code& text, address at) const {
    const unsigned char byte = text.original(at);
    write(at, &byte, 1);
  }
  void plant_all(const code& text) const {
    write(text.begin(), text.planted_text().data(), text.planted_text().size());
  }
  void restore_all(const code& text) const { write(text.begin(), text.text().data(), text.text().size()); }

 private:
  int fd_;
};

/// A thread that is traced.
struct tracee {
  pid_t id = 0;       ///< of the thread
  pid_t process = 0;  ///< of its process
  role what = role::other;
  std::shared_ptr<process_memory> memory;
  unsigned hits = 0;          ///< of the address that is being waited for
  unsigned steps_to_go = 0;   ///< single steps until the kill; 0: none
  address stepping_over = 0;  ///< where a breakpoint has to be planted again after one step
  bool held = false;          ///< not let go from where it was born
  std::chrono::steady_clock::time_point held_until{};
};

/// What a tracee that has just been forked is to do.
enum class birth {
  go,
  hold,  ///< stay at its first instruction until let_held_go(), or for some milliseconds
  free,  ///< run untraced
};

/// Follows a process and all that it forks (ptrace(2)), from the first instruction of each. Everything here happens in
/// one thread, which is the tracer.
class tracer {
 public:
  explicit tracer(const code& text);

  /// Called with a tracee that stands at its first instruction, with the text as it is in whoever forked it.
  std::function<birth(tracee&)> born;
  /// Called with a tracee that stands on a breakpoint, its program counter at the instruction's address. It goes on
  /// when this returns, unless it was killed.
  std::function<void(tracee&, address)> hit;
  /// Called when the steps that were asked for (steps_to_go) have been made.
  std::function<void(tracee&)> stepped;

  /// Traces this process, which runs one thread.
  tracee& follow(pid_t process);

  /// Handles what there is, or waits for something or for `fd` to become readable, at most as long as told. True if
  /// `fd` is readable.
  bool wait(int fd, std::chrono::milliseconds longest);

  /// Lets those go that are held.
  void let_held_go();
  /// SIGKILL, of the whole process.
  void kill(const tracee& which);
  /// Kills all that is traced, and waits until it is gone.
  void kill_all();
  /// Whoever forked them is gone: newborns that nobody has told of go on, untraced.
  void free_orphans();
  bool anyone() const { return !tracees_.empty(); }
  /// No tracee makes the steps that it was to make.
  void stop_stepping() {
    for (auto& [id, each] : tracees_) each.steps_to_go = 0, each.stepping_over = 0;
  }

  template <class Visit>
  void for_each(role what, Visit visit) {
    for (auto& [id, each] : tracees_) {
      if (each.what == what && each.id == each.process) visit(each);
    }
  }

 private:
  void handle(pid_t id, int status);
  void handle_trap(tracee& who);
  void adopt(tracee& parent, int event);
  void begin(tracee& newborn);
  void resume(tracee& who, int signal = 0);
  void resume_overdue();

  const code& text_;
  int signals_;  ///< a descriptor that is readable when a tracee has something to tell
  std::map<pid_t, tracee> tracees_;
  std::map<pid_t, int> early_;  ///< newborns whose forking has not been told of yet
};

}  // namespace breakpoints
