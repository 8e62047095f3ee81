// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <ranges>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "../support/processes.hpp"
#include "../support/resources.hpp"
#include "report.hpp"

namespace storms {

/// `--cycles N`: pools that are made, used, have workers die, and are destroyed. Afterwards descriptors, threads,
/// children, shared mappings, /dev/shm and all processes are what they were, and memory has not grown: neither what
/// malloc has handed out (bar `--heap_slope`, bytes a cycle) nor what is resident (`--resident_slope`), by a line
/// fitted through the second half of the cycles.
class leaks {
 public:
  explicit leaks(const options& wanted)
      : cycles_(wanted.count("cycles", 300)),
        heap_bar_(wanted.get("heap_slope", 64)),
        resident_bar_(wanted.get("resident_slope", 2000)),
        guard_(std::chrono::seconds(wanted.count("stall", 30)),
               [this] { return "in cycle " + std::to_string(done_); }) {}

  int run() {
    const auto begin = clock_type::now();
    const auto names = support::names_in("/dev/shm");
    cycle(0);  // what is made once and kept
    int ends[2];
    if (::pipe(ends) != 0) std::abort();
    const auto before = support::resources::now();
    // Memory that is there from the start, or the measurement would grow by itself.
    heap_.assign(cycles_, 1);
    resident_.assign(cycles_, 1);
    for (std::uint64_t i = 0; i != cycles_ && found_.count() == 0; ++i) {
      cycle(i);
      ::malloc_trim(0);  // what is free but not given back comes and goes
      heap_[i] = heap_bytes();
      resident_[i] = resident_bytes();
      done_ = i;
      guard_.alive();
    }
    const auto after = support::resources::once_as(before, std::chrono::seconds(5));
    if (const std::string more = support::resources::added(before, after); !more.empty()) found_.add("left: ", more);
    ::close(ends[1]);  // every process that was forked meanwhile has inherited a copy
    pollfd last{ends[0], POLLIN, 0};
    if (::poll(&last, 1, 10'000) != 1) found_.add("a process is left");
    ::close(ends[0]);
    for (const std::string& name : support::names_in("/dev/shm")) {
      if (std::find(names.begin(), names.end(), name) == names.end() && name.find("procpool") != name.npos)
        found_.add("left in /dev/shm: ", name);
    }
    const double heap = slope(heap_), resident = slope(resident_);
    if (heap > heap_bar_) found_.add("the heap grows by ", heap, " bytes a cycle");
    if (resident > resident_bar_) found_.add("resident memory grows by ", resident, " bytes a cycle");
    std::printf(
        "leaks: %llu cycles, %zu descriptors, threads, children and shared mappings before, %zu after; "
        "second half: heap %+.3f bytes a cycle, resident %+.3f; %llu violations; %.1f s\n",
        static_cast<unsigned long long>(cycles_), before.held.size(), after.held.size(), heap, resident,
        static_cast<unsigned long long>(found_.count()), seconds_since(begin));
    return found_.count() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  static int crash(int how) {
    if (how == 0) ::raise(SIGKILL);
    if (how == 1) std::abort();
    std::exit(how);
  }
  static std::string large(int i) { return std::string(300'000, static_cast<char>(i)); }
  static int refuse(int i) { throw std::runtime_error("no " + std::to_string(i)); }
  static int same(int i) { return i; }
  static long total(const procpool::shared_array<int>& some) { return some[0] + some[some.size() - 1]; }

  template <class Error, class Call>
  void expect(const char* what, Call call) {
    try {
      call();
      found_.add("no error: ", what);
    } catch (const Error&) {
    } catch (const std::exception& other) {
      found_.add("another error: ", what, ": ", other.what());
    }
  }

  /// Everything once; the ways to end take turns.
  void cycle(std::uint64_t i) {
    using procpool::worker_crashed;
    procpool::process_pool<> pool{procpool::pool_options{.processes = 2, .max_tasks_per_child = i % 3 == 0 ? 7u : 0u}};
    if (pool.map(same, std::views::iota(0, 30)).size() != 30) found_.add("a map is short");
    expect<worker_crashed>("a crash", [&] { pool.apply(crash, static_cast<int>(i % 3)); });
    expect<std::runtime_error>("an exception", [&] { pool.apply(refuse, 1); });
    if (pool.apply(large, 7).size() != 300'000) found_.add("a result is short");
    auto array = pool.make_shared_array<int>(100'000);
    array[0] = 4;
    if (pool.apply(total, array) != 4) found_.add("an array is wrong");
    auto some = pool.imap(same, std::views::iota(0));
    for (int n = 0; n != 5; ++n) {
      if (some.next() != n) found_.add("a lazy range is wrong");
    }
    auto then = pool.apply_async(same, 3).then([](int x) { return x + 1; });
    if (then.get() != 4) found_.add("a callback is wrong");
    auto pending = pool.map_async(same, std::views::iota(0, 50), 1);
    auto dying = pool.apply_async(crash, 0);
    if (i % 4 == 1) pending.cancel();
    if (i % 4 == 2) pool.terminate();
    if (i % 4 == 3) {
      pool.close();
      pool.join();
    }
  }

  static double heap_bytes() {
    const auto all = ::mallinfo2();
    return static_cast<double>(all.uordblks + all.hblkhd);
  }
  /// Counted page by page: the kernel's running counts (statm) are not exact.
  static double resident_bytes() {
    std::ifstream file("/proc/self/smaps_rollup");
    for (std::string word; file >> word;) {
      if (word != "Rss:") continue;
      double kilobytes = 0;
      file >> kilobytes;
      return 1024 * kilobytes;
    }
    std::abort();
  }

  /// Of the line with the least squares through the second half.
  static double slope(const std::vector<double>& all) {
    const std::size_t first = all.size() / 2, n = all.size() - first;
    if (n < 2) return 0;
    double mean = 0;
    for (std::size_t i = 0; i != n; ++i) mean += all[first + i] / static_cast<double>(n);
    const double middle = static_cast<double>(n - 1) / 2;
    double above = 0, below = 0;
    for (std::size_t i = 0; i != n; ++i) {
      const double x = static_cast<double>(i) - middle;
      above += x * (all[first + i] - mean);
      below += x * x;
    }
    return above / below;
  }

  const std::uint64_t cycles_;
  const double heap_bar_, resident_bar_;
  violations found_;
  std::vector<double> heap_, resident_;
  std::atomic<std::uint64_t> done_{0};
  watchdog guard_;
};

}  // namespace storms
