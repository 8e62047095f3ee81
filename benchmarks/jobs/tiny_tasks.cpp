// SPDX-License-Identifier: BSL-1.0
// J2: many tasks that do nothing, submitted one by one before the first result is asked for.
#include <atomic>
#include <cstddef>
#include <stdexcept>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

void submit_and_get(procpool::process_pool<>& pool, int tasks) {
  std::vector<procpool::future<int>> futures;
  futures.reserve(static_cast<std::size_t>(tasks));
  for (int i = 0; i != tasks; ++i) futures.push_back(pool.apply_async(increment, i));
  for (int i = 0; i != tasks; ++i) {
    if (futures[static_cast<std::size_t>(i)].get() != i + 1) throw std::logic_error("apply_async: a wrong result");
  }
}

template <class Round>
void emit_rate(const char* job, int tasks, Round round) {
  samples rates;
  for (int i = 0; i != 5; ++i) {
    const stopwatch since;
    round();
    rates.add(tasks / since.ms());
  }
  emit(procpool_impl, job, "rate", rates.median(), "ktask/s");
}

void from_one_thread() {
  const int tasks = scaled(200'000, 100);
  procpool::process_pool pool{workers};
  emit_rate("J2", tasks, [&] { submit_and_get(pool, tasks); });
}

void from_eight_threads() {
  constexpr int threads = 8;
  const int each = scaled(200'000 / threads, 100);
  procpool::process_pool pool{workers};
  emit_rate("J2-8threads", each * threads, [&] {
    std::atomic<bool> failed{false};
    {
      std::vector<std::jthread> all;
      for (int i = 0; i != threads; ++i) {
        all.emplace_back([&] {
          try {
            submit_and_get(pool, each);
          } catch (const std::exception&) {
            failed = true;
          }
        });
      }
    }
    if (failed) throw std::logic_error("a thread's tasks failed");
  });
}

}  // namespace

void add_tiny_tasks(job_list& jobs) {
  jobs.push_back({"J2", from_one_thread});
  jobs.push_back({"J2-8threads", from_eight_threads});
}

}  // namespace bench
