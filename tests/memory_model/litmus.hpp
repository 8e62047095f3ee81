// SPDX-License-Identifier: BSL-1.0
// Programs of a few lines for two processes, of which it is known what may come of them: a test of the model itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <source_location>

#include "memory_model/machine.hpp"

namespace memory_model {

struct litmus_words {
  atomic_word<std::uint8_t> x{0};
  atomic_word<std::uint8_t> y{1};
};

struct litmus {
  using program = std::uint8_t (*)(litmus_words&);  ///< gives what it has read
  const char* what;
  program first;
  program second;
  std::uint8_t of_first;  ///< an outcome
  std::uint8_t of_second;
  bool possible;
};

class litmus_world {
 public:
  explicit litmus_world(const litmus& what) : what_(what) {}

  static constexpr std::uint32_t fenced_words = 0;
  static std::uint8_t interruptions() { return 0; }

  struct worker_state {
    std::uint8_t unused = 0;
  };
  using parent_state = worker_state;
  struct common_state {
    std::uint8_t first = 0;
    std::uint8_t second = 0;
  };
  common_state* common = nullptr;

  bool worker(worker_state&) {
    const std::uint8_t read = what_.first(words_);
    machine::running->once([&] { return common->first = read; });
    return false;
  }
  bool parent(parent_state&) {
    const std::uint8_t read = what_.second(words_);
    machine::running->once([&] { return common->second = read; });
    return false;
  }

  const char* verdict(const common_state& all) const {
    return all.first == what_.of_first && all.second == what_.of_second ? "it has come about" : nullptr;
  }

 private:
  const litmus& what_;
  litmus_words words_;
};

// ---- the programs --------------------------------------------------------------------------------------------------

template <std::memory_order Order>
void litmus_fence() {
  atomic_fence(Order, {});
}

/// Stores to one word, then reads the other.
template <std::memory_order Store, std::memory_order Load>
std::uint8_t store_x_read_y(litmus_words& words) {
  words.x.store(1, Store);
  return words.y.load(Load);
}
template <std::memory_order Store, std::memory_order Load>
std::uint8_t store_y_read_x(litmus_words& words) {
  words.y.store(1, Store);
  return words.x.load(Load);
}
template <std::memory_order Fence>
std::uint8_t store_x_fence_read_y(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  litmus_fence<Fence>();
  return words.y.load(std::memory_order_relaxed);
}
template <std::memory_order Fence>
std::uint8_t store_y_fence_read_x(litmus_words& words) {
  words.y.store(1, std::memory_order_relaxed);
  litmus_fence<Fence>();
  return words.x.load(std::memory_order_relaxed);
}

/// Writes a message, then says that it is there.
template <std::memory_order Say>
std::uint8_t send(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  words.y.store(1, Say);
  return 0;
}
template <std::memory_order Look>
std::uint8_t receive(litmus_words& words) {
  const std::uint8_t there = words.y.load(Look);
  return static_cast<std::uint8_t>(10 * there + words.x.load(std::memory_order_relaxed));
}
inline std::uint8_t send_by_fence(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  litmus_fence<std::memory_order_release>();
  words.y.store(1, std::memory_order_relaxed);
  return 0;
}
inline std::uint8_t receive_by_fence(litmus_words& words) {
  const std::uint8_t there = words.y.load(std::memory_order_relaxed);
  litmus_fence<std::memory_order_acquire>();
  return static_cast<std::uint8_t>(10 * there + words.x.load(std::memory_order_relaxed));
}
inline std::uint8_t send_twice(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  words.y.store(1, std::memory_order_release);
  words.y.store(2, std::memory_order_relaxed);
  return 0;
}
inline std::uint8_t send_and_add(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  words.y.store(1, std::memory_order_release);
  words.y.fetch_add(1, std::memory_order_relaxed);
  return 0;
}

/// The same with plain bytes: a violation if they are read in a race.
template <std::memory_order Say>
std::uint8_t send_bytes(litmus_words& words) {
  machine::running->write(0, 1);
  words.y.store(1, Say);
  return 0;
}
template <std::memory_order Look>
std::uint8_t receive_bytes(litmus_words& words) {
  return words.y.load(Look) == 1 ? machine::running->read(0) : std::uint8_t{0};
}
/// The bytes are written again once it is said that they were read.
template <std::memory_order Say>
std::uint8_t read_bytes(litmus_words& words) {
  machine::running->read(0);
  words.y.store(1, Say);
  return 0;
}
template <std::memory_order Look>
std::uint8_t reuse_bytes(litmus_words& words) {
  if (words.y.load(Look) == 1) machine::running->write(0, 2);
  return 0;
}

inline std::uint8_t count_up(litmus_words& words) {
  words.x.store(1, std::memory_order_relaxed);
  words.x.store(2, std::memory_order_relaxed);
  return 0;
}
inline std::uint8_t read_twice(litmus_words& words) {
  const std::uint8_t before = words.x.load(std::memory_order_relaxed);
  return static_cast<std::uint8_t>(10 * before + words.x.load(std::memory_order_relaxed));
}

inline std::uint8_t read_y_store_x(litmus_words& words) {
  const std::uint8_t read = words.y.load(std::memory_order_relaxed);
  words.x.store(1, std::memory_order_relaxed);
  return read;
}
inline std::uint8_t read_x_store_y(litmus_words& words) {
  const std::uint8_t read = words.x.load(std::memory_order_relaxed);
  words.y.store(1, std::memory_order_relaxed);
  return read;
}

namespace orders {
inline constexpr auto relaxed = std::memory_order_relaxed;
inline constexpr auto acquire = std::memory_order_acquire;
inline constexpr auto release = std::memory_order_release;
inline constexpr auto acq_rel = std::memory_order_acq_rel;
inline constexpr auto seq_cst = std::memory_order_seq_cst;
}  // namespace orders

inline const litmus litmus_tests[] = {
    {"each stores and misses the other's store: relaxed", store_x_read_y<orders::relaxed, orders::relaxed>,
     store_y_read_x<orders::relaxed, orders::relaxed>, 0, 0, true},
    {"the same: release, acquire", store_x_read_y<orders::release, orders::acquire>,
     store_y_read_x<orders::release, orders::acquire>, 0, 0, true},
    {"the same: one side seq_cst", store_x_read_y<orders::seq_cst, orders::seq_cst>,
     store_y_read_x<orders::release, orders::acquire>, 0, 0, true},
    {"the same: all but one load seq_cst", store_x_read_y<orders::seq_cst, orders::seq_cst>,
     store_y_read_x<orders::seq_cst, orders::acquire>, 0, 0, true},
    {"the same: seq_cst", store_x_read_y<orders::seq_cst, orders::seq_cst>,
     store_y_read_x<orders::seq_cst, orders::seq_cst>, 0, 0, false},
    {"the same: seq_cst, but one sees it", store_x_read_y<orders::seq_cst, orders::seq_cst>,
     store_y_read_x<orders::seq_cst, orders::seq_cst>, 0, 1, true},
    {"the same: fences", store_x_fence_read_y<orders::seq_cst>, store_y_fence_read_x<orders::seq_cst>, 0, 0, false},
    {"the same: one weaker fence", store_x_fence_read_y<orders::seq_cst>, store_y_fence_read_x<orders::acq_rel>, 0, 0,
     true},
    {"the same: a fence and seq_cst", store_x_fence_read_y<orders::seq_cst>,
     store_y_read_x<orders::seq_cst, orders::seq_cst>, 0, 0, false},

    {"a message is old: relaxed", send<orders::relaxed>, receive<orders::relaxed>, 0, 10, true},
    {"the same: only released", send<orders::release>, receive<orders::relaxed>, 0, 10, true},
    {"the same: only acquired", send<orders::relaxed>, receive<orders::acquire>, 0, 10, true},
    {"the same: release, acquire", send<orders::release>, receive<orders::acquire>, 0, 10, false},
    {"it is there: release, acquire", send<orders::release>, receive<orders::acquire>, 0, 11, true},
    {"it is old: fences", send_by_fence, receive_by_fence, 0, 10, false},
    {"it is old: released by a fence, acquired by a load", send_by_fence, receive<orders::acquire>, 0, 10, false},
    {"it is old: said again without release", send_twice, receive<orders::acquire>, 0, 20, true},
    {"it is old: said again by adding, which goes on releasing", send_and_add, receive<orders::acquire>, 0, 20, false},

    {"bytes are read in a race", send_bytes<orders::relaxed>, receive_bytes<orders::acquire>, 0, 99, true},
    {"and not: release, acquire", send_bytes<orders::release>, receive_bytes<orders::acquire>, 0, 99, false},
    {"bytes are written while they are read", read_bytes<orders::release>, reuse_bytes<orders::relaxed>, 0, 99, true},
    {"and not: release, acquire", read_bytes<orders::release>, reuse_bytes<orders::acquire>, 0, 99, false},

    {"a word goes back", count_up, read_twice, 0, 21, false},
    {"it goes on", count_up, read_twice, 0, 12, true},
    {"it skips", count_up, read_twice, 0, 2, true},

    // C++ allows this one, and some processors do it: the model does not cover it (see memory.hpp).
    {"a load sees what is stored after it", read_y_store_x, read_x_store_y, 1, 1, false},
};

}  // namespace memory_model
