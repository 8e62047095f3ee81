// SPDX-License-Identifier: BSL-1.0
// Runs the code of two processes step by step. A step of a process is a plain function; each time it comes to an
// operation that can have several outcomes, or whose place among those of the other process matters, it is left (by
// longjmp), and once the explorer has decided it is run again from its beginning, with what its operations gave so far.
// So a state is a plain value, and a process in the middle of a function can be copied and gone on with in many ways.
#pragma once

#include <array>
#include <atomic>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <source_location>
#include <string>

#include "memory_model/memory.hpp"

namespace memory_model {

enum class kind : std::uint8_t {
  finished,  ///< none: the process has ended
  load,
  store,
  fetch_add,
  fence,
  sleep,     ///< futex(2), FUTEX_WAIT: sleeps while `word` is `value`
  sleeping,  ///< is in there, until it is woken
  woken,
  wake,        ///< FUTEX_WAKE
  ring,        ///< write(2) to an eventfd
  await_ring,  ///< poll(2) and read(2) of it
  spin,        ///< looks until there is something new in `word` or the word `value`
  choose,      ///< between `value` ways to go on
};

inline const char* name_of(kind what) {
  constexpr const char* names[] = {"finished", "load", "store", "fetch_add",  "fence", "sleep", "sleeping",
                                   "woken",    "wake", "ring",  "await_ring", "spin",  "choose"};
  return names[static_cast<std::size_t>(what)];
}
inline const char* name_of(std::memory_order order) {
  constexpr const char* names[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};
  return names[static_cast<std::size_t>(order)];
}

struct operation {
  kind what = kind::finished;
  std::uint8_t word = 0;
  std::uint8_t value = 0;
  std::uint8_t order = 0;  ///< a memory_order
  std::uint16_t line = 0;

  std::memory_order memory_order() const { return static_cast<std::memory_order>(order); }
};

/// An operation of the code under test that orders memory.
struct site {
  kind what = kind::finished;
  std::memory_order order{};
  unsigned line = 0;
  const char* file = "";
};

/// A site whose order is to be another, or that is to be left out. Line 0: none.
struct weakening {
  unsigned line = 0;
  std::memory_order order{};
  bool omitted = false;
};

struct process_state {
  static constexpr std::size_t longest = 24;
  operation next;
  std::uint8_t fenced = 0;   ///< there was a fence in this step
  std::uint8_t results = 0;  ///< of the operations of this step so far
  std::array<std::uint8_t, longest> result{};

  void push(std::uint8_t value) {
    if (results == longest) outgrown("a step has too many operations");
    result[results++] = value;
  }
};

/// What is common to all states of one exploration, and the state that is run now.
class machine {
 public:
  machine() { running = this; }
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;

  inline static machine* running = nullptr;

  static constexpr std::size_t longest_file = 400;  ///< in lines
  std::array<site, longest_file> sites{};           ///< by line; those that were come by
  weakening weaker{};
  std::uint32_t fenced_words = 0;  ///< bits of the words that are read only behind a fence of the same step
  const char* violation = nullptr;
  std::string* trace = nullptr;

  /// An operation of the process that is being run.
  std::uint8_t perform(operation next, const std::source_location& where) {
    next.line = static_cast<std::uint16_t>(where.line());
    if (cursor_ != process_->results) return process_->result[cursor_++];
    note(next, where);
    if (weaker.line != 0 && where.line() == weaker.line) {
      if (weaker.omitted) return done(0);
      next.order = static_cast<std::uint8_t>(weaker.order);
    }
    if (next.what == kind::load && read_fenced(next.word) && process_->fenced == 0 && weaker.line == 0)
      outgrown("a word is read without a fence before");
    if (scheduled(next)) {
      process_->next = next;
      std::longjmp(left_, 1);
    }
    return done(execute(next, 0));
  }
  std::uint8_t perform(kind what, std::uint8_t value = 0) {
    return perform({what, 0, value, 0, 0}, std::source_location());
  }

  /// Does once what is no operation on words: `action` is not repeated when the step is.
  template <class Action>
  std::uint8_t once(Action action) {
    if (cursor_ != process_->results) return process_->result[cursor_++];
    return done(static_cast<std::uint8_t>(action()));
  }

  void write(std::size_t place, std::uint8_t value) {
    once([&] {
      if (!memory_->write(index_, place, value)) violate("bytes are written while they may be read");
      say("writes bytes ", place, value);
      return 0;
    });
  }
  std::uint8_t read(std::size_t place) {
    return once([&] {
      std::uint8_t value = 0;
      if (!memory_->read(index_, place, value)) violate("bytes are read that may be torn or old");
      say("reads bytes ", place, value);
      return value;
    });
  }

  bool read_fenced(std::size_t word) const { return (fenced_words >> word & 1U) != 0; }

  void violate(const char* what) {
    if (violation == nullptr) violation = what;
  }

  void say(const char* what, std::size_t where, std::size_t value) {
    if (trace == nullptr) return;
    *trace += (index_ == 0 ? "  worker  " : "          parent  ");
    *trace += what + std::to_string(where) + " = " + std::to_string(value) + "\n";
  }

 protected:
  enum class end_of_step { pending, ended, finished };

  void attach(memory& all, process_state& process, std::size_t index) {
    memory_ = &all;
    process_ = &process;
    index_ = index;
    cursor_ = 0;
  }

  /// `step` runs until it ends or comes to an operation that has to be scheduled.
  template <class Step>
  [[gnu::noinline]] end_of_step run_step(Step& step) {
    if (setjmp(left_) != 0) return end_of_step::pending;
    return step() ? end_of_step::ended : end_of_step::finished;
  }

  /// Stores that are not sequentially consistent need no schedule: one that is made early can still be read late.
  /// Nor do fences that order nothing but what their own process does.
  static bool scheduled(const operation& next) {
    switch (next.what) {
      case kind::store:
      case kind::fetch_add:
      case kind::fence:
        return next.memory_order() == std::memory_order_seq_cst;
      default:
        return true;
    }
  }

  /// Of an operation on words.
  std::uint8_t execute(const operation& next, std::size_t which) {
    std::uint8_t result = 0;
    const std::memory_order order = next.memory_order();
    switch (next.what) {
      case kind::load:
        result = memory_->load(index_, next.word, order, which);
        break;
      case kind::store:
        memory_->store(index_, next.word, order, result = next.value);
        break;
      case kind::fetch_add:
        result = memory_->fetch_add(index_, next.word, order, next.value);
        break;
      case kind::fence:
        memory_->fence(index_, order);
        process_->fenced = 1;
        break;
      default:
        break;
    }
    if (trace != nullptr) {
      *trace += (index_ == 0 ? "  worker  " : "          parent  ");
      *trace += "line " + std::to_string(next.line) + ": " + name_of(next.what) + " " + name_of(order);
      if (next.what != kind::fence) *trace += " word " + std::to_string(next.word) + " = " + std::to_string(result);
      *trace += "\n";
    }
    return result;
  }

 private:
  std::uint8_t done(std::uint8_t result) {
    process_->push(result);
    ++cursor_;
    return result;
  }

  void note(const operation& next, const std::source_location& where) {
    if (where.line() == 0) return;
    if (where.line() >= longest_file) outgrown("the file under test is too long");
    site& here = sites[where.line()];
    if (here.line != 0 && (here.what != next.what || here.order != next.memory_order()))
      outgrown("two operations on one line");
    here = {next.what, next.memory_order(), where.line(), where.file_name()};
  }

  memory* memory_ = nullptr;
  process_state* process_ = nullptr;
  std::size_t index_ = 0;
  std::size_t cursor_ = 0;
  std::jmp_buf left_;
};

/// What std::atomic is to the code under test.
template <class T>
class atomic_word {
 public:
  explicit constexpr atomic_word(std::uint8_t index) : index_(index) {}
  atomic_word(const atomic_word&) = delete;
  atomic_word& operator=(const atomic_word&) = delete;

  std::uint8_t index() const noexcept { return index_; }

  T load(std::memory_order order, const std::source_location& where = std::source_location::current()) const noexcept {
    return static_cast<T>(machine::running->perform({kind::load, index_, 0, number(order), 0}, where));
  }
  void store(T value, std::memory_order order,
             const std::source_location& where = std::source_location::current()) noexcept {
    machine::running->perform({kind::store, index_, small(value), number(order), 0}, where);
  }
  T fetch_add(T more, std::memory_order order,
              const std::source_location& where = std::source_location::current()) noexcept {
    return static_cast<T>(machine::running->perform({kind::fetch_add, index_, small(more), number(order), 0}, where));
  }

 private:
  static std::uint8_t number(std::memory_order order) { return static_cast<std::uint8_t>(order); }
  static std::uint8_t small(T value) {
    if (static_cast<std::uint64_t>(value) > 255) outgrown("a value is too large");
    return static_cast<std::uint8_t>(value);
  }
  std::uint8_t index_;
};

inline void atomic_fence(std::memory_order order, const std::source_location& where) noexcept {
  machine::running->perform({kind::fence, 0, 0, static_cast<std::uint8_t>(order), 0}, where);
}

}  // namespace memory_model
