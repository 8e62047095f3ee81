// SPDX-License-Identifier: BSL-1.0
// J3: a range of ints through map and imap, and an array of doubles reduced in the workers.
#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

double millions_per_second(std::size_t items, double ms) { return static_cast<double>(items) / ms / 1e3; }

void map(const std::string& name, std::size_t chunksize) {
  std::vector<int> in(scaled<std::size_t>(1'000'000, 1000));
  std::iota(in.begin(), in.end(), 0);
  procpool::process_pool pool{workers};
  samples rates;
  for (int i = 0; i != 5; ++i) {
    const stopwatch since;
    const std::vector<int> out = pool.map(increment, in, chunksize);
    rates.add(millions_per_second(in.size(), since.ms()));
    if (out.size() != in.size() || out.back() != in.back() + 1) throw std::logic_error("map: a wrong result");
  }
  emit(procpool_impl, name, "rate", rates.median(), "Mitem/s");
}

/// `ahead` is how many inputs were taken and not yet yielded, at most: what bounds the memory.
void imap(const std::string& name, procpool::call_options options) {
  const int items = scaled(300'000, 1000);
  procpool::process_pool pool{workers};
  samples rates;
  std::ptrdiff_t ahead = 0;
  for (int i = 0; i != 3; ++i) {
    std::ptrdiff_t taken = 0;
    std::ptrdiff_t yielded = 0;
    auto in = std::views::iota(0, items) | std::views::transform([&taken](int x) {
                ++taken;
                return x;
              });
    const stopwatch since;
    for (const int y : pool.with(options).imap(increment, in)) {
      ahead = std::max(ahead, taken - yielded);
      if (y != ++yielded) throw std::logic_error("imap: a wrong result");
    }
    rates.add(millions_per_second(static_cast<std::size_t>(items), since.ms()));
  }
  emit(procpool_impl, name, "rate", rates.median(), "Mitem/s");
  emit(procpool_impl, name, "ahead", static_cast<double>(ahead), "item");
}

double twice(double x) { return x + x; }

double sum_in_two_threads(std::span<const double> all) {
  double sums[2] = {};
  {
    const auto half = [&](std::size_t which, std::span<const double> part) {
      sums[which] = std::transform_reduce(part.begin(), part.end(), 0.0, std::plus<>(), twice);
    };
    const std::jthread other([&] { half(1, all.subspan(all.size() / 2)); });
    half(0, all.first(all.size() / 2));
  }
  return sums[0] + sums[1];
}

void reduce() {
  const std::size_t items = scaled<std::size_t>(100'000'000, 10'000);
  procpool::process_pool pool{workers};
  const auto array = pool.make_shared_array<double>(items);
  std::ranges::fill(array, 1.0);
  const auto transform = [](double x) { return twice(x); };
  samples own;
  samples floor;
  for (int i = 0; i != 6; ++i) {
    const stopwatch first;
    const double there = pool.transform_reduce(array, 0.0, std::plus<>(), transform);
    const double taken = first.ms();
    const stopwatch second;
    const double here = sum_in_two_threads({array.data(), array.size()});
    if (there != here) throw std::logic_error("transform_reduce: a wrong result");
    if (i == 0) continue;  // the workers have not seen those pages yet
    own.add(millions_per_second(items, taken));
    floor.add(millions_per_second(items, second.ms()));
  }
  emit(procpool_impl, "J3-reduce", "rate", own.median(), "Mitem/s");
  emit("floor:two-threads", "J3-reduce", "rate", floor.median(), "Mitem/s");
}

}  // namespace

void add_maps(job_list& jobs) {
  jobs.push_back({"J3-default", [] { map("J3-default", 0); }});
  jobs.push_back({"J3-chunk1", [] { map("J3-chunk1", 1); }});
  jobs.push_back({"J3-imap", [] { imap("J3-imap", {}); }});
  jobs.push_back({"J3-imap-buffer1000", [] { imap("J3-imap-buffer1000", {.buffersize = 1000}); }});
  jobs.push_back({"J3-reduce", reduce});
}

}  // namespace bench
