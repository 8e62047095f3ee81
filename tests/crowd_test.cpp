// SPDX-License-Identifier: BSL-1.0
// More workers than processors, and tiny tasks: few workers run them, until a task is not tiny.
#include <sched.h>

#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int next(int x) { return x + 1; }

/// While it lives this thread, and what it forks, may use one processor.
class one_processor {
 public:
  one_processor() {
    ::sched_getaffinity(0, sizeof(before_), &before_);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (std::size_t cpu = 0; cpu != CPU_SETSIZE && CPU_COUNT(&one) == 0; ++cpu) {
      if (CPU_ISSET(cpu, &before_)) CPU_SET(cpu, &one);
    }
    ::sched_setaffinity(0, sizeof(one), &one);
  }
  one_processor(const one_processor&) = delete;
  one_processor& operator=(const one_processor&) = delete;
  ~one_processor() { ::sched_setaffinity(0, sizeof(before_), &before_); }

 private:
  cpu_set_t before_{};
};

void run_tiny_ones(process_pool<>& pool, int count) {
  std::vector<future<int>> results;
  for (int i = 0; i != count; ++i) results.push_back(pool.apply_async(next, i));
  for (int i = 0; i != count; ++i) REQUIRE(results[static_cast<std::size_t>(i)].get() == i + 1);
}

}  // namespace

TEST_CASE("tasks that wait for each other all start, after tiny ones, too", "[crowd]") {
  resources_unchanged guard;
  const one_processor narrow;
  constexpr int workers = 12;
  const shared_words arrived(20);
  process_pool pool{workers};
  for (auto& here : arrived) {
    run_tiny_ones(pool, 500);
    std::vector<future<void>> all;
    for (int i = 0; i != workers; ++i) {
      all.push_back(pool.apply_async([here = &here] {
        ++*here;
        // Not for ever, so that a test that fails ends.
        if (!eventually([&] { return *here == workers; }, 20s)) std::_Exit(99);
      }));
    }
    for (future<void>& each : all) each.get();
  }
}

TEST_CASE("tiny tasks do not wait behind one that is slow", "[crowd]") {
  resources_unchanged guard;
  const one_processor narrow;
  const shared_words all_done(20);
  process_pool pool{4};
  for (auto& done : all_done) {
    run_tiny_ones(pool, 500);
    std::vector<future<void>> all;
    for (int i = 0; i != 300; ++i) {
      all.push_back(pool.apply_async(
          [done = &done](int which) {
            if (which % 100 != 50) {
              ++*done;
            } else if (!eventually([&] { return *done == 297; }, 20s)) {
              std::_Exit(99);
            }
          },
          i));
    }
    for (future<void>& each : all) each.get();
  }
}

#if !defined(PROCPOOL_TEST_ASAN) && !defined(PROCPOOL_TEST_TSAN)  // where no task is tiny
TEST_CASE("tiny tasks are run by few workers", "[crowd]") {
  resources_unchanged guard;
  const one_processor narrow;
  constexpr std::size_t workers = 32;
  process_pool pool{static_cast<int>(workers)};
  const auto completed = [&] {
    std::vector<std::size_t> all;
    for (const worker_stats& each : pool.stats().workers) all.push_back(each.tasks_completed);
    return all;
  };
  // A worker that does not get its turn for a while is taken for stuck, so that on a busy machine some more may be woken.
  CHECK(eventually([&] {
    run_tiny_ones(pool, 2000);
    const std::vector<std::size_t> before = completed();
    run_tiny_ones(pool, 2000);
    const std::vector<std::size_t> after = completed();
    std::size_t at_work = 0;
    for (std::size_t i = 0; i != workers; ++i) at_work += before[i] != after[i] ? 1U : 0U;
    return at_work <= workers / 4;
  }));
}
#endif
