// SPDX-License-Identifier: BSL-1.0
// allocation_sweep [--most N] [--at-least N] [--expect-failure] [--one N]: runs the workload of the sweeps again and
// again, each time with another `operator new` throwing std::bad_alloc: the n-th of the parent, of the first zygote or
// worker that gets so far, or of every worker; n = 1, 2, ... until a run passes without one. The bar for each run: it
// ends by itself, every step ends in its result or in a documented error, and nothing is left behind. --one: only that
// in the parent, to be looked at in a debugger.
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>

#include "failing_new.hpp"
#include "held.hpp"
#include "workload.hpp"

namespace {

using sweeps::failing_allocations;
using sweeps::kind;

constexpr int longest_ms = 15'000;

struct run_end {
  long hits = 0;
  bool refused = false;  ///< a step ended in a documented error
  std::string wrong{};
};

/// One run, in the process that it is in to its end. What it comes to goes to the standard output.
[[noreturn]] void run_here(const failing_allocations& failing) {
  sweeps::count_forks();
  sweeps::leak_check leaks;
  sweeps::what_fails = failing;
  sweeps::what_fails.armed = true;
  sweeps::workload work;
  const sweeps::verdict result = work.run();
  sweeps::what_fails.armed = false;
  std::string wrong = result.wrong;
  if (const std::string left = leaks.left_behind(); !left.empty()) {
    wrong += (wrong.empty() ? "left behind: " : "; left behind: ") + left;
  }
  if (!wrong.empty()) {
    sweeps::say(wrong);
    ::_exit(3);
  }
  sweeps::say(result.refused == 0 ? "ok" : std::string("refused ") + result.first_error);
  ::_exit(0);
}

run_end run(const failing_allocations& failing) {
  sweeps::failed->count.store(0);
  sweeps::failed->chosen.store(0);
  int ends[2];
  if (::pipe(ends) != 0) std::abort();
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(ends[0]);
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[1]);
    run_here(failing);
  }
  ::close(ends[1]);
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(longest_ms);
  std::string said;
  bool hung = false;
  for (;;) {
    pollfd waiting{ends[0], POLLIN, 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
    if (left <= 0 || ::poll(&waiting, 1, static_cast<int>(left)) != 1) {
      hung = true;
      ::kill(child, SIGABRT);  // for whoever wants to look at where it hangs
      break;
    }
    std::array<char, 1024> part{};
    const ssize_t got = ::read(ends[0], part.data(), part.size());
    if (got <= 0) break;
    said.append(part.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  run_end end{sweeps::failed->count.load(), said.starts_with("refused"), {}};
  if (hung) {
    end.wrong = "hung " + said;
  } else if (WIFSIGNALED(status)) {
    end.wrong = "crashed by signal " + std::to_string(WTERMSIG(status));
  } else if (WEXITSTATUS(status) != 0) {
    end.wrong = said;
  }
  return end;
}

struct totals {
  long runs = 0;
  long hits = 0;
  long refused = 0;
  long wrong = 0;
};

/// Every number until a run passes untouched.
void sweep(failing_allocations failing, const char* name, long most, totals& all) {
  totals own;
  long number = 1;
  for (; number <= most; ++number) {
    failing.number = number;
    const run_end end = run(failing);
    ++own.runs;
    own.hits += end.hits;
    own.refused += end.refused ? 1 : 0;
    if (!end.wrong.empty()) {
      ++own.wrong;
      std::printf("WRONG: allocation %ld %s: %s\n", number, name, end.wrong.c_str());
      std::fflush(stdout);
    }
    if (end.hits == 0) break;
  }
  std::printf("%s: %ld runs, %ld allocations failed, %ld runs with a documented error, %ld wrong\n", name, own.runs,
              own.hits, own.refused, own.wrong);
  std::fflush(stdout);
  all.runs += own.runs;
  all.hits += own.hits;
  all.refused += own.refused;
  all.wrong += own.wrong;
}

}  // namespace

int main(int count, char** words) {
  long most = 100'000;
  long at_least = 1;  // allocations to fail, or the sweep has not swept
  long one = 0;
  bool expect_failure = false;
  for (int i = 1; i < count; ++i) {
    if (std::string_view(words[i]) == "--expect-failure") expect_failure = true;
    if (std::string_view(words[i]) == "--most" && i + 1 < count) most = std::atol(words[++i]);
    if (std::string_view(words[i]) == "--at-least" && i + 1 < count) at_least = std::atol(words[++i]);
    if (std::string_view(words[i]) == "--one" && i + 1 < count) one = std::atol(words[++i]);
  }
  void* const shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 2;
  sweeps::failed = new (shared) sweeps::failed_allocations;
  if (one != 0) run_here({.number = one});
  totals all;
  sweep({.where = kind::parent}, "in the parent", most, all);
  sweep({.where = kind::parent, .in_a_row = 50}, "and 49 more in the parent", most, all);
  sweep({.where = kind::zygote}, "in a zygote", most, all);
  sweep({.where = kind::worker}, "in one worker", most, all);
  sweep({.where = kind::worker, .once = false}, "in each worker", most, all);
  std::printf("%ld runs, %ld allocations failed, %ld runs with a documented error, %ld wrong\n", all.runs, all.hits,
              all.refused, all.wrong);
  if (all.hits < at_least) return 2;
  return (all.wrong != 0) == expect_failure ? 0 : 1;
}
