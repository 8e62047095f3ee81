// SPDX-License-Identifier: BSL-1.0
// What one parent and one worker pay for a task, and how fast 1 to 64 workers get on whose tasks mostly sleep: what
// model.py works with, and what it is checked by.
//   procpool_scaling           prints a line of JSON for each result
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <ranges>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"

namespace bench {

namespace {

void emit_ns(const std::string& job, double value) { emit("procpool", job, "cost", value, "ns"); }

/// Processor time of this process, all of its threads.
double own_cpu_ns() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto ns = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_usec) * 1e3;
  };
  return ns(used.ru_utime) + ns(used.ru_stime);
}

void sleep_for_us(long us) {
  const timespec time{.tv_sec = 0, .tv_nsec = us * 1000};
  ::nanosleep(&time, nullptr);
}

/// Where workers wait until they are let through. Made before the pool.
class turnstile {
 public:
  turnstile() {
    if (::pipe(ends_) != 0) throw std::system_error(errno, std::generic_category(), "pipe");
  }
  turnstile(const turnstile&) = delete;
  turnstile& operator=(const turnstile&) = delete;
  ~turnstile() {
    ::close(ends_[0]);
    ::close(ends_[1]);
  }

  /// Every worker of the pool waits here when it returns.
  procpool::future<void> hold(procpool::process_pool<>& pool, int workers) const {
    const auto pass = [end = ends_[0]](int) {
      char byte;
      if (::read(end, &byte, 1) != 1) throw std::system_error(errno, std::generic_category(), "read");
    };
    auto held = pool.map_async(pass, std::views::iota(0, workers), 1);
    while (pool.stats().tasks_running != static_cast<std::size_t>(workers)) sleep_for_us(200);
    return held;
  }
  void let_through(int workers) const {
    const std::vector<char> bytes(static_cast<std::size_t>(workers));
    if (::write(ends_[1], bytes.data(), bytes.size()) < 0)
      throw std::system_error(errno, std::generic_category(), "write");
  }

 private:
  int ends_[2]{};
};

/// What the parent pays for a task with so many workers: to submit it and to collect its result, in processor time, as
/// nobody waits awake meanwhile.
void parent_costs(int workers) {
  constexpr int waiting_in_a_lane = 200;
  const int tasks = waiting_in_a_lane * workers;
  const int rounds = scaled(40'000 / tasks + 1, 2);
  const turnstile gate;
  procpool::process_pool pool{workers};
  samples submitting;
  samples collecting;
  for (int round = 0; round != rounds; ++round) {
    const auto held = gate.hold(pool, workers);
    std::vector<procpool::future<int>> all;
    all.reserve(static_cast<std::size_t>(tasks));
    const double before = own_cpu_ns();
    for (int i = 0; i != tasks; ++i) all.push_back(pool.apply_async(increment, i));
    const double submitted = own_cpu_ns();
    gate.let_through(workers);
    while (pool.stats().tasks_queued + pool.stats().tasks_running != 0) sleep_for_us(2000);
    const double collected = own_cpu_ns();
    submitting.add((submitted - before) / tasks);
    collecting.add((collected - submitted) / tasks);
    for (auto& each : all) keep(each.get());
  }
  const std::string with = "-" + std::to_string(workers);
  emit_ns("submit" + with, submitting.median());
  emit_ns("collect" + with, collecting.median());
}

/// The same for an element of a map, chunked by default; and what the worker pays for it.
void element_costs() {
  const int elements = scaled(1'000'000, 1000);
  procpool::process_pool pool{2};
  procpool::process_pool one{1};
  const auto when = [](int) { return std::chrono::steady_clock::now().time_since_epoch().count(); };
  samples parent;
  samples worker;
  for (int round = 0; round != 5; ++round) {
    const double before = own_cpu_ns();
    auto all = pool.map_async(increment, std::views::iota(0, elements));
    while (!all.ready()) sleep_for_us(2000);
    parent.add((own_cpu_ns() - before) / elements);
    keep(all.get());
    const auto times = one.map(when, std::views::iota(0, 1000), 1000);
    worker.add(static_cast<double>(times.back() - times.front()) / 999);
  }
  emit_ns("element-parent", parent.median());
  emit_ns("element-worker", worker.median());
}

/// What a worker pays for a task, when more wait in its lane.
void worker_costs() {
  constexpr int tasks = 200;
  const turnstile gate;
  procpool::process_pool pool{1};
  samples cost;
  for (int round = 0; round != scaled(100, 2); ++round) {
    const auto held = gate.hold(pool, 1);
    std::vector<procpool::future<long>> all;
    for (int i = 0; i != tasks; ++i) {
      all.push_back(pool.apply_async([] { return std::chrono::steady_clock::now().time_since_epoch().count(); }));
    }
    gate.let_through(1);
    const long first = all.front().get();
    cost.add(static_cast<double>(all.back().get() - first) / (tasks - 1));
  }
  emit_ns("worker", cost.median());
}

/// Tasks a second of tasks that sleep for so long, whose inputs take the parent so many steps of burn() to make.
double rate_of_sleepers(int workers, int tasks, long us, std::uint64_t steps) {
  procpool::process_pool pool{workers, [] { ::prctl(PR_SET_TIMERSLACK, 1UL); }};
  const auto inputs = std::views::iota(0, tasks) | std::views::transform([steps](int i) {
                        keep(burn(steps));
                        return i;
                      });
  const auto task = [us](int i) {
    sleep_for_us(us);
    return i;
  };
  pool.map(task, std::views::iota(0, workers), 1);
  const stopwatch since;
  for (const int each : pool.with({.buffersize = static_cast<std::size_t>(workers) * 4}).imap_unordered(task, inputs)) {
    keep(each);
  }
  return tasks / since.ms() * 1e3;
}

void sleeper_rates() {
  constexpr long us = 1000;
  const std::uint64_t steps = steps_of_a_millisecond() / 20;
  const stopwatch since;
  for (int i = 0; i != 1000; ++i) keep(burn(steps));
  emit_ns("input", since.ns() / 1000);
  for (const bool slow_inputs : {false, true}) {
    for (const int workers : {1, 2, 4, 8, 16, 32, 64}) {
      samples rates;
      for (int round = 0; round != 3; ++round) {
        rates.add(rate_of_sleepers(workers, scaled(workers * 300, workers * 10), us, slow_inputs ? steps : 0));
      }
      emit("procpool", std::string(slow_inputs ? "slow-inputs-" : "sleepers-") + std::to_string(workers), "rate",
           rates.median(), "1/s");
    }
  }
}

}  // namespace

}  // namespace bench

int main() {
  try {
    for (const int workers : {1, 2, 4, 8, 16, 32, 64}) bench::parent_costs(workers);
    bench::worker_costs();
    bench::element_costs();
    bench::sleeper_rates();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "procpool_scaling: %s\n", error.what());
    return 1;
  }
}
