// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <functional>
#include <numeric>
#include <ranges>
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

/// One thread's calls: members of the pool, chosen at random, each checked for what came of every element.
class caller {
 public:
  caller(procpool::process_pool<>& pool, history& past, violations& found, watchdog& guard, std::uint64_t seed)
      : pool_(pool), past_(past), found_(found), guard_(guard), random_(seed) {}

  void call() {
    using member = void (caller::*)();
    constexpr member members[] = {&caller::apply,        &caller::apply_async, &caller::map,       &caller::map_async,
                                  &caller::try_map,      &caller::imap,        &caller::unordered, &caller::large,
                                  &caller::shared_array, &caller::callbacks,   &caller::reduce,    &caller::broadcast,
                                  &caller::retried,      &caller::limited};
    (this->*members[random_.below(std::size(members))])();
    ++calls;
    guard_.alive();
  }

  std::uint64_t calls = 0;

 private:
  using numbers = std::vector<std::uint64_t>;

  numbers some_ids(std::uint64_t most, std::uint8_t retries = 0, bool limited = false) {
    numbers ids(random_.below(most + 1));
    std::iota(ids.begin(), ids.end(), past_.new_ids(ids.size(), retries, limited));
    return ids;
  }
  std::size_t some_chunksize() { return random_.below(3) * random_.below(20); }

  /// Takes one result, and notes how it ended.
  template <class Get>
  void outcome_of(std::uint64_t id, Get get) {
    try {
      past_.value(id, get());
    } catch (const procpool::task_cancelled&) {
      found_.add("task ", id, ": cancelled by nobody");
    } catch (...) {
      past_.failed(id, std::current_exception(), throws(id));
    }
  }

  /// What a call for many elements threw: it must be the first failure, and all before it must have run.
  void first_failure(const numbers& ids, const std::exception_ptr& failure) {
    if (ids.empty()) return found_.add("a map of nothing failed");
    std::uint64_t index = past_.check_failure(ids[0], failure, true);
    if (index == history::none) {
      if (ids.size() != 1) found_.add("task ", ids[0], " and behind: the error does not name one");
      index = 0;
    }
    if (index >= ids[0]) index -= ids[0];  // an exception of a task names the id
    if (index >= ids.size()) return found_.add("task ", ids[0], " and behind: the error names another one");
    for (std::uint64_t i = 0; i != index; ++i) {
      if (history::runs(ids[i]) == 0) found_.add("task ", ids[i], ": did not run, but one behind it failed");
      if (throws(ids[i])) found_.add("task ", ids[i], ": failed, but one behind it is the first");
    }
    for (const std::uint64_t id : ids) past_.unseen(id);
  }

  void check_values(const numbers& ids, const numbers& values) {
    if (values.size() != ids.size()) return found_.add("a map of ", ids.size(), " has ", values.size(), " results");
    for (std::size_t i = 0; i != ids.size(); ++i) past_.value(ids[i], values[i] == result_of(ids[i]));
  }

  // ---- the members ------------------------------------------------------------------------------------------------

  void apply() {
    const std::uint64_t id = past_.new_ids(1);
    outcome_of(id, [&] { return pool_.apply(work, id) == result_of(id); });
  }

  void apply_async() {
    const numbers ids = some_ids(40);
    std::vector<procpool::future<std::uint64_t>> futures;
    for (const std::uint64_t id : ids) futures.push_back(pool_.apply_async(work, id));
    std::vector<bool> cancelled(ids.size(), false);
    for (std::uint64_t n = random_.below(4); n != 0 && !ids.empty(); --n) {
      const std::size_t i = random_.below(ids.size());
      if (cancelled[i]) continue;
      const bool was_cancelled = futures[i].cancel();
      if (was_cancelled && !futures[i].cancelled()) found_.add("task ", ids[i], ": cancelled, but not cancelled()");
      cancelled[i] = was_cancelled;
    }
    for (std::size_t i = 0; i != ids.size(); ++i) {
      if (!cancelled[i]) {
        outcome_of(ids[i], [&] { return futures[i].get() == result_of(ids[i]); });
        continue;
      }
      try {
        futures[i].get();
        found_.add("task ", ids[i], ": cancelled, but it has a result");
      } catch (const procpool::task_cancelled&) {
        past_.cancelled(ids[i]);
      } catch (const std::exception& failure) {
        found_.add("task ", ids[i], ": cancelled, but it ended in ", failure.what());
      }
    }
  }

  void map() {
    const numbers ids = some_ids(100);
    try {
      check_values(ids, pool_.map(work, ids, some_chunksize()));
    } catch (...) {
      first_failure(ids, std::current_exception());
    }
  }

  void map_async() {
    const numbers ids = some_ids(60);
    procpool::future<numbers> all = pool_.map_async(work, ids, some_chunksize());
    const bool cancelled = random_.one_in(3) && all.cancel();
    try {
      check_values(ids, all.get());
      if (cancelled) found_.add("a map was cancelled, but has a result");
    } catch (const procpool::task_cancelled&) {
      if (!cancelled) found_.add("a map was cancelled by nobody");
      for (const std::uint64_t id : ids) past_.cancelled(id);
    } catch (...) {
      if (cancelled) found_.add("a map was cancelled, but ended in something else");
      first_failure(ids, std::current_exception());
    }
  }

  void try_map() { outcomes_of(some_ids(100), {}); }

  void imap() {
    const numbers ids = some_ids(80);
    const std::size_t enough = random_.one_in(4) ? random_.below(ids.size() + 1) : ids.size();
    auto results = pool_.with({.buffersize = random_.below(60)}).imap(work, ids, 1 + some_chunksize());
    for (std::size_t i = 0; i != enough; ++i) {
      outcome_of(ids[i], [&] {
        const auto next = results.next();
        return next && *next == result_of(ids[i]);
      });
    }
    if (enough == ids.size() && results.next()) found_.add("an imap has too many results");
    for (std::size_t i = enough; i < ids.size(); ++i) past_.unseen(ids[i]);
  }

  void unordered() {
    const numbers ids = some_ids(80);
    auto results = pool_.imap_unordered(work_named, ids, 1 + some_chunksize());
    std::vector<bool> ended(ids.size(), false);
    for (std::size_t i = 0; i != ids.size(); ++i) {
      std::exception_ptr failure;
      std::uint64_t id = 0;
      try {
        const auto next = results.next();
        if (!next) return found_.add("an imap_unordered ended early");
        id = *next;
      } catch (...) {
        failure = std::current_exception();
        id = past_.check_failure(ids[0], failure, true);
        if (id < ids.size()) id += ids[0];  // a crash names the place in the range
        if (ids.size() == 1) id = ids[0];   // or does not need to
      }
      if (id < ids[0] || id - ids[0] >= ids.size()) return found_.add("an imap_unordered has someone else's element");
      if (ended[id - ids[0]]) found_.add("task ", id, ": twice in an imap_unordered");
      ended[id - ids[0]] = true;
      failure ? past_.unseen(id) : past_.value(id, true);
    }
    if (results.next()) found_.add("an imap_unordered has too many results");
  }

  void large() {
    const numbers ids = some_ids(6);
    std::vector<procpool::future<std::string>> futures;
    for (const std::uint64_t id : ids) futures.push_back(pool_.apply_async(work_large, id, large_value(id + 1)));
    for (std::size_t i = 0; i != ids.size(); ++i)
      outcome_of(ids[i], [&] { return futures[i].get() == large_value(ids[i]); });
  }

  void shared_array() {
    const numbers ids = some_ids(6);
    auto in = pool_.make_shared_array<std::uint64_t>(1 + random_.below(2000));
    std::iota(in.begin(), in.end(), std::uint64_t{17});
    std::vector<procpool::future<procpool::shared_array<std::uint64_t>>> futures;
    for (const std::uint64_t id : ids) futures.push_back(pool_.apply_async(work_array, id, in));
    for (std::size_t i = 0; i != ids.size(); ++i) {
      outcome_of(ids[i], [&] {
        const auto out = futures[i].get();
        bool right = out.size() == in.size();
        for (std::size_t k = 0; right && k != in.size(); ++k) right = out[k] == (in[k] ^ ids[i]);
        return right;
      });
    }
  }

  /// Each callback is called once, and may call the pool.
  void callbacks() {
    const numbers ids = some_ids(20);
    std::vector<procpool::future<int>> futures;
    std::atomic<std::size_t> called{0};
    for (const std::uint64_t id : ids) {
      const bool again = random_.one_in(4);
      futures.push_back(pool_.apply_async(work, id).then(
          [&, id, again](std::uint64_t value) {
            ++called;
            past_.value(id, value == result_of(id));
            if (again) apply_in_callback();
            return 1;
          },
          [&, id](const std::exception_ptr& failure) {
            ++called;
            past_.failed(id, failure, throws(id));
            return 2;
          }));
    }
    for (auto& each : futures) each.get();
    if (called != ids.size()) found_.add("a callback was not called, or twice");
  }
  void apply_in_callback() {
    const std::uint64_t id = past_.new_ids(1);
    outcome_of(id, [&] { return pool_.apply(work, id) == result_of(id); });
  }

  void reduce() {
    const numbers ids = some_ids(100);
    std::uint64_t sum = 1000;
    for (const std::uint64_t id : ids) sum += result_of(id);
    try {
      const bool right = pool_.transform_reduce(ids, std::uint64_t{1000}, add, work) == sum;
      for (const std::uint64_t id : ids) past_.value(id, right);
    } catch (...) {
      past_.check_failure(ids[0], std::current_exception(), true);
      for (const std::uint64_t id : ids) past_.unseen(id);
    }
  }

  void broadcast() {
    const std::uint64_t id = past_.new_ids(1);
    past_.unseen(id);
    try {
      pool_.broadcast([] {});
    } catch (...) {
      past_.check_failure(id, std::current_exception(), false);
    }
  }

  /// Tasks whose worker is killed are run again, up to twice.
  void retried() {
    constexpr std::uint8_t times = 2;
    outcomes_of(some_ids(60, times), {.timeout = std::chrono::seconds(100), .retries = times});
  }

  /// Some tasks are too slow: the pool kills their workers.
  void limited() {
    outcomes_of(some_ids(40, 0, true), {.timeout = std::chrono::microseconds(300 + random_.below(600)),
                                        .grace = std::chrono::microseconds(random_.below(2) * 300)});
  }

  void outcomes_of(const numbers& ids, procpool::call_options limits) {
    const auto outcomes = pool_.with(std::move(limits)).try_map(work, ids, some_chunksize());
    if (outcomes.size() != ids.size()) return found_.add("a try_map has another number of outcomes");
    for (std::size_t i = 0; i != ids.size(); ++i) {
      if (outcomes[i]) {
        past_.value(ids[i], *outcomes[i] == result_of(ids[i]));
      } else {
        past_.failed(ids[i], outcomes[i].error(), throws(ids[i]));
      }
    }
  }

  procpool::process_pool<>& pool_;
  history& past_;
  violations& found_;
  watchdog& guard_;
  dice random_;
};

/// `--kills N`: pools under all kinds of calls from several threads, whose workers are killed at random times, until
/// that many are dead. `--pause_us`, `--processes`, `--callers`, `--seed`, `--stall` (seconds that count as hung).
class kill_storm {
 public:
  explicit kill_storm(const options& wanted)
      : kills_(wanted.count("kills", 4000)),
        per_pool_(wanted.count("per_pool", 2000)),
        pause_(std::chrono::microseconds(wanted.count("pause_us", 1000))),
        processes_(static_cast<int>(wanted.count("processes", 4))),
        callers_(wanted.count("callers", 3)),
        seed_(wanted.count("seed", static_cast<std::uint64_t>(::getpid()))),
        guard_(std::chrono::seconds(wanted.count("stall", 30)), [this] { return where(); }) {}

  int run() {
    const auto begin = clock_type::now();
    while (dead_ < kills_ && found_.count() == 0) round(pools_++);
    std::printf(
        "kill storm: %llu kills (%llu of workers that ran a task), %llu pools, %llu calls, %llu tasks: %llu results, "
        "%llu lost to a kill as seen by the caller, %llu exceptions, %llu cancelled, %llu timed out; "
        "%llu violations; seed %llu, %.1f s\n",
        number(dead_), number(busy_dead_), number(pools_), number(calls_), number(past_.ids()), number(past_.values),
        number(past_.crashes), number(past_.exceptions), number(past_.cancels), number(past_.timeouts),
        number(found_.count()), number(seed_), seconds_since(begin));
    return found_.count() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  static unsigned long long number(std::uint64_t n) { return n; }

  void round(std::uint64_t pool_number) {
    const std::string name = "st" + std::to_string(::getpid());
    phase_ = "starting a pool";
    procpool::process_pool<> pool{procpool::pool_options{.processes = processes_, .name = name}};
    {
      const std::uint64_t seed = mix(seed_ + 1000 * pool_number);
      killer storm(pool, name, pool_number, past_, found_, pause_, seed);
      phase_ = "calling";
      std::atomic<bool> ended{false};
      std::vector<std::thread> threads;
      for (std::uint64_t i = 0; i != callers_; ++i) {
        threads.emplace_back([&, i] {
          caller each(pool, past_, found_, guard_, seed + i);
          while (!ended) each.call();
          calls_ += each.calls;
        });
      }
      while (storm.kills() < per_pool_ && dead_ + storm.kills() < kills_ && found_.count() == 0)
        std::this_thread::sleep_for(1ms);
      ended = true;
      for (auto& each : threads) each.join();
      if (pool_number % 2 == 0) {
        storm.stop();
        serve_again(pool);
      }
      phase_ = "closing";
      pool.close();
      pool.join();
    }
    guard_.alive();
    check_counts(pool.stats(), pool_number);
    past_.check_all();
  }

  /// When the storm is over, the pool is as good as new.
  void serve_again(procpool::process_pool<>& pool) {
    phase_ = "after the storm";
    const std::uint64_t first = past_.new_ids(200);
    const auto outcomes = pool.try_map(work, std::views::iota(first, first + 200), 1);
    for (std::uint64_t i = 0; i != 200; ++i) {
      if (outcomes[i]) {
        past_.value(first + i, *outcomes[i] == result_of(first + i));
      } else {
        past_.failed(first + i, outcomes[i].error(), throws(first + i));
      }
    }
  }

  void check_counts(const procpool::pool_stats& end, std::uint64_t pool_number) {
    if (end.tasks_queued != 0 || end.tasks_running != 0) found_.add("a pool that is closed has tasks left");
    if (end.tasks_submitted != end.tasks_completed + end.tasks_failed)
      found_.add("the counts do not add up at the end");
    // The pool itself kills those that run what is cancelled or too slow.
    const std::uint64_t killed = past_.kills_in(pool_number), ended = past_.cancels + past_.timeouts;
    if (end.workers_crashed > killed + ended - ended_before_)
      found_.add("", end.workers_crashed, " workers crashed, but only ", killed, " were killed");
    ended_before_ = ended;
    dead_ += std::min<std::uint64_t>(killed, end.workers_crashed);
    busy_dead_ += past_.crashes - crashes_before_;
    crashes_before_ = past_.crashes;
  }

  std::string where() const {
    return std::string(phase_.load()) + ", after " + std::to_string(dead_) + " kills and " +
           std::to_string(past_.ids()) + " tasks; seed " + std::to_string(seed_);
  }

  const std::uint64_t kills_, per_pool_;
  const std::chrono::microseconds pause_;
  const int processes_;
  const std::uint64_t callers_, seed_;
  violations found_;
  history past_{found_};
  std::uint64_t pools_ = 0;
  std::atomic<std::uint64_t> dead_{0}, busy_dead_{0}, calls_{0};
  std::uint64_t crashes_before_ = 0, ended_before_ = 0;
  std::atomic<const char*> phase_{"starting"};
  watchdog guard_;
};

}  // namespace storms
