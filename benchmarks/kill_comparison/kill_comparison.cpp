// SPDX-License-Identifier: BSL-1.0
// kill_comparison KIND: the workload of kill_comparison.py on procpool, for one kind of kill.
// kill_comparison --check: each kind; fails if a task is lost, or one fails that was not killed.
#include <signal.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

namespace {

using namespace std::chrono_literals;
using clock_type = std::chrono::steady_clock;

constexpr int workers = 4;
constexpr auto task_time = 5ms;
constexpr auto bound = 15s;  // what has not ended so long after the last kill is lost

/// Nanoseconds of CLOCK_MONOTONIC, which all processes share.
std::int64_t now_ns() { return clock_type::now().time_since_epoch() / 1ns; }

/// What the workers tell of the kills, in memory of its own.
struct notes {
  std::atomic<std::int64_t> last_death{0};
  std::atomic<pid_t> victim{0};
};
notes* shared = nullptr;
std::int64_t born = 0;  // when this worker was initialized

struct answer {
  std::int64_t born;
  std::int64_t ended;
  pid_t pid;
};

__attribute__((noinline)) int overflow_stack(volatile char* above) {
  volatile char here[1024];
  here[0] = above[0];
  if (here[0] == 1) return 0;
  return overflow_stack(here) + here[1023];
}

enum class death { none, wait_for_kill, exit, kill, overflow };

answer run(death how) {
  if (how == death::wait_for_kill) {
    shared->victim = ::getpid();
    std::this_thread::sleep_for(60s);
  } else if (how != death::none) {
    shared->last_death = now_ns();
    if (how == death::exit) ::_exit(0);
    if (how == death::kill) ::raise(SIGKILL);
    volatile char start = 0;
    overflow_stack(&start);
  }
  std::this_thread::sleep_for(task_time);
  return {born, now_ns(), ::getpid()};
}

void kill_from_outside(pid_t victim) {
  shared->last_death = now_ns();
  ::kill(victim, SIGKILL);
}

struct kind {
  const char* name;
  int tasks;
  death how;
  int every, first;  // tasks first, first + every, … are killed; 0: none
};
constexpr std::array kinds{
    kind{"busy", 41, death::wait_for_kill, 41, 10},
    kind{"exit", 41, death::exit, 41, 10},
    kind{"idle", 40, death::none, 0, 0},
    kind{"many", 400, death::kill, 40, 20},
    kind{"overflow", 41, death::overflow, 41, 10},
};

struct tally {
  int killed = 0, told = 0, lost = 0, collateral = 0;
  std::optional<double> recovered_ms{};
};

void note_recovery(tally& all, const answer& each) {
  if (each.born <= shared->last_death) return;
  const double after = static_cast<double>(each.ended - shared->last_death) / 1e6;
  all.recovered_ms = std::min(all.recovered_ms.value_or(after), after);
}

tally workload(procpool::process_pool<>& pool, const kind& what) {
  if (what.every == 0) {
    std::set<pid_t> idle;
    while (idle.size() != workers) {
      for (const answer& each : pool.map(run, std::vector(workers, death::none), 1)) idle.insert(each.pid);
    }
    for (const pid_t each : idle) {
      std::this_thread::sleep_for(100ms);
      kill_from_outside(each);
    }
  }
  const auto is_killed = [&](int i) { return what.every != 0 && i % what.every == what.first; };
  tally all;
  std::vector<procpool::future<answer>> futures;
  for (int i = 0; i != what.tasks; ++i) futures.push_back(pool.apply_async(run, is_killed(i) ? what.how : death::none));
  if (what.how == death::wait_for_kill) {
    while (shared->victim == 0) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(10ms);
    kill_from_outside(shared->victim);
  }

  const auto deadline = clock_type::now() + bound;
  for (int i = 0; i != what.tasks; ++i) {
    auto& each = futures[static_cast<std::size_t>(i)];
    if (is_killed(i)) ++all.killed;
    if (each.wait_until(deadline) != std::future_status::ready) {
      ++all.lost;
      continue;
    }
    try {
      note_recovery(all, each.get());
    } catch (const std::exception&) {
      ++(is_killed(i) ? all.told : all.collateral);
    }
  }
  while (!all.recovered_ms && clock_type::now() < deadline) {
    for (const answer& each : pool.map(run, std::vector(workers, death::none), 1)) note_recovery(all, each);
  }
  return all;
}

tally cell(const kind& what) {
  shared->last_death = 0;
  shared->victim = 0;
  procpool::process_pool<> pool{procpool::pool_options{.processes = workers, .initializer = [] { born = now_ns(); }}};
  const tally all = workload(pool, what);
  std::printf("killed=%d told=%d lost=%d collateral=%d recovered_ms=%.1f\n", all.killed, all.told, all.lost,
              all.collateral, all.recovered_ms.value_or(-1.0));
  std::fflush(stdout);
  pool.close();
  pool.join();
  std::puts("ended");
  std::fflush(stdout);
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view wanted = argc == 2 ? argv[1] : "";
  void* const at = ::mmap(nullptr, sizeof(notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) return EXIT_FAILURE;
  shared = new (at) notes;

  bool known = false, good = true;
  for (const kind& each : kinds) {
    if (wanted != "--check" && wanted != each.name) continue;
    known = true;
    if (wanted == "--check") std::printf("%s: ", each.name);
    const tally all = cell(each);
    good = good && all.lost == 0 && all.collateral == 0 && all.told == all.killed && all.recovered_ms;
  }
  if (!known) {
    std::fputs("usage: kill_comparison busy|exit|idle|many|overflow|--check\n", stderr);
    return 2;
  }
  return wanted != "--check" || good ? EXIT_SUCCESS : EXIT_FAILURE;
}
