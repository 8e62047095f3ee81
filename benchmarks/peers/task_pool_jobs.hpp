// SPDX-License-Identifier: BSL-1.0
// The jobs of procpool_bench on a pool of threads that takes functions and gives std::future.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <future>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "peers/arguments.hpp"

namespace bench {

/// Calls `fn` with 0 … items-1, in tasks of `chunk` calls.
template <class Pool, class Fn>
void map_indices(Pool& pool, std::size_t items, std::size_t chunk, const Fn& fn) {
  std::vector<std::future<void>> parts;
  parts.reserve(items / chunk + 1);
  for (std::size_t begin = 0; begin < items; begin += chunk) {
    parts.push_back(pool.submit([&fn, begin, end = std::min(items, begin + chunk)] {
      for (std::size_t i = begin; i != end; ++i) fn(i);
    }));
  }
  for (std::future<void>& part : parts) part.get();
}

template <class Pool>
void time_calls(const std::string& impl, Pool& pool) {
  samples ns;
  for (int i = 0; i != scaled(4000, 20); ++i) {
    const stopwatch since;
    keep(pool.submit([i] { return increment(i); }).get());
    ns.add(since.ns());
  }
  emit_latency(impl, "J1", ns);
}

template <class Pool>
void time_tiny_tasks(const std::string& impl, Pool& pool) {
  const int tasks = scaled(200'000, 100);
  samples rates;
  for (int round = 0; round != 5; ++round) {
    const stopwatch since;
    std::vector<std::future<int>> futures;
    futures.reserve(static_cast<std::size_t>(tasks));
    for (int i = 0; i != tasks; ++i) futures.push_back(pool.submit([i] { return increment(i); }));
    for (std::future<int>& each : futures) keep(each.get());
    rates.add(tasks / since.ms());
  }
  emit(impl, "J2", "rate", rates.median(), "ktask/s");
}

template <class Pool>
void time_map(const std::string& impl, Pool& pool, const char* job, std::size_t items, std::size_t chunk) {
  std::vector<int> in(items);
  std::iota(in.begin(), in.end(), 0);
  samples rates;
  for (int round = 0; round != 5; ++round) {
    const stopwatch since;
    std::vector<int> out(items);
    map_indices(pool, items, chunk, [&](std::size_t i) { out[i] = increment(in[i]); });
    keep(out.back());
    rates.add(static_cast<double>(items) / since.ms() / 1e3);
  }
  emit(impl, job, "rate", rates.median(), "Mitem/s");
}

/// As a pool of threads would pass it by value: one copy.
template <class Pool>
void time_large_values(const std::string& impl, Pool& pool) {
  for (const std::size_t size : {1u, 64u, 256u}) {
    const std::size_t bytes = size * mebibyte;
    const int times = size == 1 ? scaled(200, 5) : scaled(size == 64 ? 6 : 3, 2);
    const std::vector<double> all(bytes / sizeof(double), 1.0);
    samples argument;
    samples result;
    for (int i = 0; i != times; ++i) {
      const stopwatch first;
      keep(pool.submit([copy = all] { return copy.front() + copy.back(); }).get());
      argument.add(first.ns());
      const stopwatch second;
      keep(pool.submit([&] { return std::vector<double>(bytes / sizeof(double), 1.0); }).get().back());
      result.add(second.ns());
    }
    const std::string suffix = std::to_string(size) + "MiB";
    emit(impl, "J4-arg-" + suffix, "bw", static_cast<double>(bytes) / argument.median(), "GB/s");
    emit(impl, "J4-res-" + suffix, "bw", static_cast<double>(bytes) / result.median(), "GB/s");
  }
}

template <class Pool>
void time_work(const std::string& impl, Pool& pool, const asked_jobs& asked) {
  const std::uint64_t steps = steps_of_a_millisecond();
  if (asked.has("J5")) {
    const std::size_t tasks = tasks_of_efficiency();
    emit(impl, "J5", "efficiency",
         efficiency_of_two(tasks, steps,
                           [&] { map_indices(pool, tasks, 1, [steps](std::size_t) { keep(burn(steps)); }); }),
         "");
  }
  if (!asked.has("J7")) return;
  const std::size_t tasks = tasks_of_skew();
  for (const auto& [name, place] : {std::pair{"first", std::size_t{0}}, {"mid", tasks / 2}, {"last", tasks}}) {
    emit(impl, std::string("J7-") + name + "-chunk1", "makespan/ideal",
         makespan_of_two(tasks, place, steps,
                         [&, at = place] {
                           map_indices(pool, tasks + 1, 1,
                                       [=](std::size_t i) { keep(burn(i == at ? steps * tasks / 2 : steps)); });
                         }),
         "");
  }
}

template <class Pool>
void time_start_and_stop(const std::string& impl) {
  for (const int threads : {2, 8, 64}) {
    samples ms;
    for (int i = 0; i != scaled(20, 2); ++i) {
      const stopwatch since;
      {
        Pool pool(threads);
        keep(pool.submit([] { return increment(1); }).get());
      }
      ms.add(since.ms());
    }
    emit(impl, "J6-" + std::to_string(threads), "startstop", ms.median(), "ms");
  }
}

template <class Pool>
int run_task_pool_jobs(const std::string& impl, const asked_jobs& asked) {
  if (asked.has("J6")) time_start_and_stop<Pool>(impl);
  Pool pool(2);
  if (asked.has("J1")) time_calls(impl, pool);
  if (asked.has("J2")) time_tiny_tasks(impl, pool);
  if (asked.has("J3")) {
    const std::size_t items = scaled<std::size_t>(1'000'000, 1000);
    time_map(impl, pool, "J3-default", items, items / 8);
    time_map(impl, pool, "J3-chunk1", items, 1);
  }
  if (asked.has("J4")) time_large_values(impl, pool);
  if (asked.has("J5") || asked.has("J7")) time_work(impl, pool, asked);
  return 0;
}

}  // namespace bench
