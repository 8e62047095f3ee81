// SPDX-License-Identifier: BSL-1.0
// What a task costs the parent and what it costs the worker, without their waiting for each other. Without valgrind this
// only runs; what it counts, check.py reads.
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <numeric>
#include <ranges>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "count.hpp"
#include "support/one_thread.hpp"

namespace {

using namespace instruction_counts;

/// Once for each side, when it has run before and everything has the size that it needs.
template <class Work>
void measure(const std::string& name, std::size_t elements, Work work) {
  work();
  support::on_worker = toggle;
  count(name + ": worker", elements, work);
  toggle();  // all but the worker
  count(name + ": parent", elements, work);
  toggle();
  support::on_worker = [](bool) {};
}

void check(bool holds) {
  if (!holds) throw std::logic_error("something is wrong");
}

int next(int x) { return x + 1; }
std::string longer(const std::string& text) { return text + "!"; }
double sum(const std::vector<double>& all) { return std::accumulate(all.begin(), all.end(), 0.0); }
std::vector<double> ones(std::size_t n) { return std::vector<double>(n, 1.0); }

using one_thread_pool = procpool::process_pool<support::one_thread>;

void submit_and_get(one_thread_pool& pool) {
  std::vector<procpool::future<int>> all;
  all.reserve(2000);
  for (int i = 0; i != 2000; ++i) all.push_back(pool.apply_async(next, i));
  for (int i = 0; i != 2000; ++i) check(all[static_cast<std::size_t>(i)].get() == i + 1);
}

void run() {
  one_thread_pool pool{2};

  measure("apply", 500, [&] {
    for (int i = 0; i != 500; ++i) check(pool.apply(next, i) == i + 1);
  });
  // More than the slots of both lanes: most of them wait in the queue.
  measure("apply_async, then get", 2000, [&] { submit_and_get(pool); });
  measure("map of int", 10'000, [&] { check(pool.map(next, std::views::iota(0, 10'000)).back() == 10'000); });
  measure("map of int, chunksize 1", 2000, [&] { check(pool.map(next, std::views::iota(0, 2000), 1).back() == 2000); });
  measure("map of string", 2000, [&, texts = std::vector<std::string>(2000, "a text that is on the heap")] {
    check(pool.map(longer, texts).back() == texts.back() + "!");
  });
  measure("imap", 1000, [&] {
    int seen = 0;
    for (const int each : pool.imap(next, std::views::iota(0, 1000))) check(each == ++seen);
  });
  constexpr std::size_t numbers = 100 * 1024 / sizeof(double);
  measure("argument of 100 KiB", 20, [&, all = ones(numbers)] {
    for (int i = 0; i != 20; ++i) check(pool.apply(sum, all) == static_cast<double>(numbers));
  });
  measure("result of 100 KiB", 20, [&] {
    for (int i = 0; i != 20; ++i) check(pool.apply(ones, numbers).size() == numbers);
  });
}

/// What is not to grow with the number of workers.
void run_many() {
  one_thread_pool pool{64};
  measure("64 workers, apply_async, then get", 2000, [&] { submit_and_get(pool); });
}

}  // namespace

#ifdef INSTRUCTION_COUNTS_SEEDED
int main(int argc, char** argv) try {
  check(argc == 2 && seeded::choose(argv[1]));
#else
int main() try {
#endif
  print_conditions();
  run();
  run_many();
} catch (const std::exception& error) {
  std::fprintf(stderr, "instruction_counts: %s\n", error.what());
  return EXIT_FAILURE;
}
