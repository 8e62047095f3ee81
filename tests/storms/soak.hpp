// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

#include "history.hpp"
#include "killer.hpp"
#include "report.hpp"
#include "work.hpp"

namespace storms {

/// `--seconds N --window N --kept PERCENT`: one pool under steady load, with kills, big results and
/// time-outs. The rate of the last window is at least that share of the first one's. The rate is of rounds of
/// a fixed mix of calls; the first window begins after a quarter of a window.
class soak {
 public:
  explicit soak(const options& wanted)
      : seconds_(wanted.get("seconds", 1800)),
        window_(wanted.get("window", 60)),
        kept_(wanted.get("kept", 95)),
        pause_(std::chrono::microseconds(wanted.count("pause_us", 20'000))),
        seed_(wanted.count("seed", static_cast<std::uint64_t>(::getpid()))),
        guard_(std::chrono::seconds(wanted.count("stall", 30)),
               [this] { return std::to_string(past_.ids()) + " tasks"; }) {}

  int run() {
    const std::string name = "so" + std::to_string(::getpid());
    procpool::process_pool<> pool{procpool::pool_options{.processes = 4, .name = name}};
    {
      killer storm(pool, name, 0, past_, found_, pause_, seed_);
      std::thread other([&] { serve(pool); });
      measure();
      ended_ = true;
      other.join();
      kills_ = storm.kills();
    }
    past_.check_all();
    if (rates_.size() < 2) {
      found_.add("too short: fewer than two windows");
    } else if (rates_.back() < kept_ / 100 * rates_.front()) {
      found_.add("slower: the last window has ", rates_.back(), " rounds a second, the first ", rates_.front());
    }
    const auto [lowest, highest] = std::minmax_element(rates_.begin(), rates_.end());
    std::printf(
        "soak: %.0f s, %zu windows of %.0f s, %llu tasks, %llu kills, %llu timed out; rounds a second: first %.1f, "
        "last %.1f (%.1f%%), lowest %.1f, highest %.1f; %llu violations\n",
        seconds_, rates_.size(), window_, static_cast<unsigned long long>(past_.ids()),
        static_cast<unsigned long long>(kills_), static_cast<unsigned long long>(past_.timeouts), rates_.front(),
        rates_.back(), 100 * rates_.back() / rates_.front(), *lowest, *highest,
        static_cast<unsigned long long>(found_.count()));
    return found_.count() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  void measure() {
    std::this_thread::sleep_for(std::chrono::duration<double>(window_ / 4));
    for (const auto begin = clock_type::now(); seconds_since(begin) + window_ <= seconds_ + 0.01;) {
      const auto from = clock_type::now();
      const std::uint64_t before = rounds_;
      std::this_thread::sleep_for(std::chrono::duration<double>(window_));
      rates_.push_back(static_cast<double>(rounds_ - before) / seconds_since(from));
      if (found_.count() != 0) break;
    }
  }

  void serve(procpool::process_pool<>& pool) {
    while (!ended_) {
      const std::uint64_t first = past_.new_ids(100);
      std::vector<std::uint64_t> ids(96);
      std::iota(ids.begin(), ids.end(), first);
      std::vector<procpool::future<std::string>> large;
      for (std::uint64_t id = first + 96; id != first + 100; ++id)
        large.push_back(pool.apply_async(work_large, id, large_value(id + 1)));
      const auto outcomes = pool.try_map(work, ids);
      for (std::size_t i = 0; i != ids.size(); ++i) {
        if (outcomes[i]) {
          past_.value(ids[i], *outcomes[i] == result_of(ids[i]));
        } else {
          past_.failed(ids[i], outcomes[i].error(), throws(ids[i]));
        }
      }
      for (std::uint64_t i = 0; i != large.size(); ++i) {
        try {
          past_.value(first + 96 + i, large[i].get() == large_value(first + 96 + i));
        } catch (...) {
          past_.failed(first + 96 + i, std::current_exception(), throws(first + 96 + i));
        }
      }
      if (rounds_ % 50 == 0) time_out(pool);
      ++rounds_;
      guard_.alive();
    }
  }

  /// A task that takes too long costs its worker.
  void time_out(procpool::process_pool<>& pool) {
    const std::uint64_t id = past_.new_ids(1, 0, true);
    try {
      pool.with({.timeout = std::chrono::milliseconds(5)}).apply(sleep_long, id);
      found_.add("task ", id, ": no time-out");
    } catch (...) {
      past_.failed(id, std::current_exception(), false);
    }
  }
  static void sleep_long(std::uint64_t id) {
    history::note_run(id);
    std::this_thread::sleep_for(std::chrono::seconds(100));
  }

  const double seconds_, window_, kept_;
  const std::chrono::microseconds pause_;
  const std::uint64_t seed_;
  violations found_;
  history past_{found_};
  std::vector<double> rates_;
  std::atomic<std::uint64_t> rounds_{0};
  std::atomic<bool> ended_{false};
  std::uint64_t kills_ = 0;
  watchdog guard_;
};

}  // namespace storms
