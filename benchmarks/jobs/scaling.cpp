// SPDX-License-Identifier: BSL-1.0
// J10: whether a task costs the same among thousands and millions, with few workers and with more than there are
// processors, and in whatever order the results are asked for.
#include <algorithm>
#include <cstddef>
#include <numeric>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

using order = std::vector<std::size_t>;

order forward(std::size_t tasks) {
  order all(tasks);
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

/// Nanoseconds for each of so many tasks, submitted first and then waited on in that order.
double cost_ns(procpool::process_pool<>& pool, const order& waiting) {
  std::vector<procpool::future<int>> futures;
  futures.reserve(waiting.size());
  const stopwatch since;
  for (std::size_t i = 0; i != waiting.size(); ++i) futures.push_back(pool.apply_async(increment, static_cast<int>(i)));
  for (const std::size_t i : waiting) {
    if (futures[i].get() != static_cast<int>(i) + 1) throw std::logic_error("apply_async: a wrong result");
  }
  return since.ns() / static_cast<double>(waiting.size());
}

/// Emits the cost of one point, the median of some runs that have about as many tasks together at each point.
double emit_cost(const std::string& job, procpool::process_pool<>& pool, const order& waiting) {
  const std::size_t runs = std::clamp<std::size_t>(scaled<std::size_t>(300'000) / waiting.size(), 3, 100);
  cost_ns(pool, waiting);
  samples costs;
  for (std::size_t i = 0; i != runs; ++i) costs.add(cost_ns(pool, waiting));
  emit(procpool_impl, job, "cost", costs.median(), "ns");
  return costs.median();
}

/// The dearest point over the cheapest.
class spread {
 public:
  void add(double cost) {
    least_ = least_ == 0 ? cost : std::min(least_, cost);
    most_ = std::max(most_, cost);
  }
  void emit_as(const std::string& job) const { emit(procpool_impl, job, "spread", most_ / least_, ""); }

 private:
  double least_ = 0;
  double most_ = 0;
};

void by_tasks() {
  const std::size_t most = scaled<std::size_t>(full() ? 10'000'000 : 1'000'000, 10'000);
  procpool::process_pool pool{workers};
  spread all;
  for (std::size_t tasks = 1000; tasks <= most; tasks *= 10) {
    all.add(emit_cost("J10-tasks-" + std::to_string(tasks), pool, forward(tasks)));
  }
  all.emit_as("J10-tasks");
}

void by_workers() {
  const order waiting = forward(scaled<std::size_t>(100'000, 1000));
  spread all;
  for (const int count : {1, 2, 4, 8, 16, 32, 64}) {
    procpool::process_pool pool{count};
    all.add(emit_cost("J10-workers-" + std::to_string(count), pool, waiting));
  }
  all.emit_as("J10-workers");
}

void by_order() {
  order waiting = forward(scaled<std::size_t>(100'000, 1000));
  procpool::process_pool pool{workers};
  spread all;
  all.add(emit_cost("J10-order-forward", pool, waiting));
  std::ranges::reverse(waiting);
  all.add(emit_cost("J10-order-reverse", pool, waiting));
  std::ranges::shuffle(waiting, std::mt19937(1));
  all.add(emit_cost("J10-order-shuffled", pool, waiting));
  all.emit_as("J10-order");
}

}  // namespace

void add_scaling(job_list& jobs) {
  jobs.push_back({"J10-tasks", by_tasks});
  jobs.push_back({"J10-workers", by_workers});
  jobs.push_back({"J10-order", by_order});
}

}  // namespace bench
