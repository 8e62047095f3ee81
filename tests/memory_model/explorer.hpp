// SPDX-License-Identifier: BSL-1.0
// Goes through every schedule of two processes, and every store that each load may read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "memory_model/machine.hpp"
#include "memory_model/state_table.hpp"

namespace memory_model {

class state_hash {
 public:
  template <class T>
  void add(const T& value) {
    static_assert(std::has_unique_object_representations_v<T>);
    const auto* at = reinterpret_cast<const unsigned char*>(&value);
    for (std::size_t left = sizeof(T); left != 0;) {
      std::uint64_t bytes = 0;
      const std::size_t n = left < sizeof(bytes) ? left : sizeof(bytes);
      std::memcpy(&bytes, at, n);
      sum_ = (sum_ ^ bytes) * 0x9e3779b97f4a7c15U;
      sum_ ^= sum_ >> 29;
      at += n;
      left -= n;
    }
  }
  std::uint64_t sum() const { return sum_; }

 private:
  std::uint64_t sum_ = 0x2545f4914f6cdd1dU;
};

struct exploration {
  std::size_t states = 0;
  std::size_t transitions = 0;
  std::size_t sleeps = 0;  ///< in a futex
  std::size_t wakes = 0;   ///< of one that slept
  std::size_t rings = 0;   ///< that were heard
  double schedules = 0;    ///< ways through the states, without going in circles
  const char* violation = nullptr;
  std::string trace;  ///< how it came to that
};

/// `World` says what the two processes do:
///   worker_state, parent_state, common_state   what they keep between steps, and what is noted of both; plain bytes
///   worker(worker_state&), parent(…)           one step, which keeps nothing but there; false: it was the last
///   verdict(common)                            what is wrong when nobody can go on; null: nothing
///   common                                     where the explorer puts a pointer to the common state
template <class World>
class explorer : machine {
 public:
  explicit explorer(World& world, weakening what = {}) : world_(world) {
    weaker = what;
    fenced_words = World::fenced_words;
  }

  using machine::sites;

  /// All of them, or until there are `most_states`.
  exploration run(std::size_t most_states = ~std::size_t{0}) {
    visit(beginning());
    while (!path_.empty() && found_.violation == nullptr && found_.states != most_states) {
      frame& top = path_.back();
      if (top.process == processes) {
        const double schedules = top.schedules;
        schedules_.at(top.hash) = schedules;
        path_.pop_back();
        (path_.empty() ? found_.schedules : path_.back().schedules) += schedules;
        continue;
      }
      state next = top.at;
      top.taken_process = top.process;
      top.taken_which = top.which++;
      take(next, top.taken_process, top.taken_which, top.ways);
      top.find_way();
      ++found_.transitions;
      visit(next);
    }
    if (found_.violation != nullptr) tell();
    return std::move(found_);
  }

 private:
  struct state {
    memory words;
    std::array<process_state, processes> process;
    std::uint8_t rings = 0;
    std::uint8_t interruptions = 0;
    std::array<std::uint8_t, processes> skip{};  ///< of the ways on, the first ones, which lead nowhere new
    typename World::worker_state worker;
    typename World::parent_state parent;
    typename World::common_state common;

    std::uint64_t hash() const {
      state_hash sum;
      words.hash(sum);
      for (const process_state& each : process) {
        sum.add(each.next);
        sum.add(each.results);
        for (std::size_t i = 0; i != each.results; ++i) sum.add(each.result[i]);
      }
      sum.add(rings);
      sum.add(interruptions);
      sum.add(skip);
      sum.add(worker);
      sum.add(parent);
      sum.add(common);
      return sum.sum();
    }
  };
  struct frame {
    state at;
    std::uint64_t hash;
    std::array<std::size_t, processes> ways;  ///< for each process; of one that need not be gone on with now, 0
    double schedules = 0;
    std::size_t process = 0;  ///< the way to try next: of this process, and which of them
    std::size_t which = 0;
    std::size_t taken_process = processes;  ///< the way that is being tried
    std::size_t taken_which = 0;

    void find_way() {
      for (; process != processes; which = at.skip[++process % processes]) {
        while (which < ways[process] && superseded(at, process, which)) ++which;
        if (which < ways[process]) return;
      }
    }
  };

  state beginning() {
    state first{};
    first.interruptions = world_.interruptions();
    advance(first, 0);
    advance(first, 1);
    return first;
  }

  /// In how many ways the process can go on.
  static std::size_t ways_on(const state& at, std::size_t i) {
    const operation& next = at.process[i].next;
    switch (next.what) {
      case kind::finished:
      case kind::sleeping:
        return 0;
      case kind::load:
        return at.words.readable(i, next.word, next.memory_order());
      case kind::sleep:
        return fenced(at, i).readable(i, next.word, std::memory_order_relaxed) + (at.interruptions != 0);
      case kind::await_ring:
        return at.rings != 0;
      case kind::spin:
        return at.words.readable(i, next.word, std::memory_order_relaxed) > 1 ||
               at.words.readable(i, next.value, std::memory_order_relaxed) > 1;
      case kind::choose:
        return next.value;
      default:
        return 1;
    }
  }

  static bool superseded(const state& at, std::size_t i, std::size_t which) {
    const operation& next = at.process[i].next;
    if (next.what == kind::load) return at.words.superseded(i, next.word, next.memory_order(), which);
    if (next.what != kind::sleep) return false;
    const std::size_t others = at.interruptions != 0;
    return which >= others && fenced(at, i).superseded(i, next.word, std::memory_order_relaxed, which - others);
  }

  static memory fenced(const state& at, std::size_t i) {
    memory all = at.words;
    all.fence(i, std::memory_order_seq_cst);
    return all;
  }

  // Two operations whose order matters are of the same kind. A load that reads an older store is the same wherever it
  // stands, so loads are of neither: they have an order with nothing but in what they read.
  enum class order_matters { with_none, with_sequentially_consistent, with_rings };
  static order_matters order_of(const operation& next) {
    switch (next.what) {
      case kind::finished:
      case kind::spin:
      case kind::choose:
      case kind::woken:
        return order_matters::with_none;
      case kind::ring:
      case kind::await_ring:
        return order_matters::with_rings;
      case kind::load:
        if (next.memory_order() != std::memory_order_seq_cst) return order_matters::with_none;
        [[fallthrough]];
      default:
        return order_matters::with_sequentially_consistent;
    }
  }

  void visit(const state& at) {
    found_.violation = violation;
    if (violation != nullptr) return;
    const std::uint64_t hash = at.hash();
    const auto [schedules, fresh] = schedules_.insert(hash);
    if (!fresh) {
      if (!path_.empty()) path_.back().schedules += *schedules;
      return;
    }
    ++found_.states;
    frame here{at, hash, {ways_on(at, 0), ways_on(at, 1)}};
    if (here.ways[0] + here.ways[1] == 0) {
      here.schedules = 1;
      found_.violation = violation = world_.verdict(at.common);
    }
    // What a process chooses by itself is no matter to the other: it need not be tried before.
    if (at.process[1].next.what == kind::choose) here.ways[0] = 0;
    here.which = at.skip[0];
    here.find_way();
    path_.push_back(here);
  }

  /// Goes on with process `i`. The other's `ways`, if it was tried before, need not be tried again after what does not
  /// affect them (sleep sets).
  void take(state& at, std::size_t i, std::size_t which, const std::array<std::size_t, processes>& ways) {
    process_state& process = at.process[i];
    operation& other = at.process[1 - i].next;
    const operation next = process.next;
    const order_matters order = order_of(next);
    if (order != order_matters::with_none && order == order_of(other)) {
      at.skip[1 - i] = 0;
    } else if (i == 1 && ways[0] != 0) {
      at.skip[0] = static_cast<std::uint8_t>(ways[0]);
    }
    at.skip[i] = 0;
    attach(at.words, process, i);
    switch (next.what) {
      case kind::sleep: {
        // The kernel looks at the word, and a wake looks for sleepers, under one lock and with full fences (futex(2)).
        at.words.fence(i, std::memory_order_seq_cst);
        const bool interrupted = at.interruptions != 0 && which == 0;
        which -= at.interruptions != 0;
        at.interruptions = static_cast<std::uint8_t>(at.interruptions - interrupted);
        say("sleep ", next.word, interrupted);
        if (!interrupted && at.words.load(i, next.word, std::memory_order_relaxed, which) == next.value) {
          process.next.what = kind::sleeping;
          ++found_.sleeps;
          return;
        }
        process.push(0);
        break;
      }
      case kind::wake:
        at.words.fence(i, std::memory_order_seq_cst);
        say("wake ", next.word, other.what == kind::sleeping);
        if (other.what == kind::sleeping && other.word == next.word) {
          other.what = kind::woken;
          ++found_.wakes;
        }
        process.push(0);
        break;
      case kind::ring:
        ++at.rings;
        say("ring ", 0, at.rings);
        process.push(0);
        break;
      case kind::await_ring:
        at.rings = 0;
        ++found_.rings;
        say("heard ring ", 0, 0);
        process.push(0);
        break;
      case kind::woken:
      case kind::spin:
      case kind::choose:
        process.push(static_cast<std::uint8_t>(which));
        break;
      default:
        process.push(execute(next, which));
        break;
    }
    advance(at, i);
  }

  /// Runs a process until it comes to an operation that has to be scheduled.
  void advance(state& at, std::size_t i) {
    world_.common = &at.common;
    for (;;) {
      attach(at.words, at.process[i], i);
      const end_of_step how = i == 0 ? attempt(at.worker, [this](auto& mine) { return world_.worker(mine); })
                                     : attempt(at.parent, [this](auto& mine) { return world_.parent(mine); });
      if (how == end_of_step::pending) break;
      at.process[i] = {};
      if (how == end_of_step::finished) break;
    }
    if (weaker_fence()) return;
    for (std::size_t word = 0; word != most_words; ++word) {
      for (std::size_t process = 0; read_fenced(word) && process != processes; ++process) {
        if (at.process[process].fenced == 0) at.words.expect_fence(process, word);
      }
    }
  }

  /// The library's fences are not what they are expected to be.
  bool weaker_fence() const { return weaker.omitted || weaker.order == std::memory_order_acq_rel; }

  template <class Kept, class Step>
  end_of_step attempt(Kept& kept, Step step) {
    Kept changed = kept;
    auto once = [&] { return step(changed); };
    const end_of_step how = run_step(once);
    if (how != end_of_step::pending) kept = changed;
    return how;
  }

  /// Goes the way of the violation again and writes it down.
  void tell() {
    trace = &found_.trace;
    state at = beginning();
    for (const frame& each : path_) {
      if (each.taken_process != processes) take(at, each.taken_process, each.taken_which, {});
    }
    found_.trace += std::string("violation: ") + found_.violation + "\n";
    trace = nullptr;
  }

  World& world_;
  exploration found_;
  std::vector<frame> path_;
  state_table schedules_;  ///< from a state on
};

}  // namespace memory_model
