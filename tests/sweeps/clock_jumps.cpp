// SPDX-License-Identifier: BSL-1.0
// clock_jumps: the wall clock is set an hour on or back while a pool waits for something; the parent of a pool is stopped
// while its workers go on. No time-out comes early or is missed, no result is lost, no worker is killed for nothing.
// The wall clock is this program's own: clock_gettime(2) and gettimeofday(2), as its libraries call them, are below.
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <ranges>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"

using namespace std::chrono_literals;

namespace {

/// By how much the wall clock is wrong, in every process: shared memory.
std::atomic<long>* offset_seconds = nullptr;

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = ::syscall(SYS_clock_gettime, clock, now);
  if (result == 0 && clock == CLOCK_REALTIME && offset_seconds != nullptr) now->tv_sec += offset_seconds->load();
  return static_cast<int>(result);
}
extern "C" int gettimeofday(timeval* now, void*) noexcept {
  timespec precise{};
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

namespace {

using pool_type = procpool::process_pool<>;

int checks = 0;
int failures = 0;

void check(bool holds, const char* what) {
  ++checks;
  if (holds) return;
  ++failures;
  std::printf("WRONG: %s\n", what);
  std::fflush(stdout);
}

/// Sets the wall clock when `here` sleeps in the kernel.
std::thread jump_when_asleep(pid_t here, long seconds) {
  return std::thread([here, seconds] {
    support::await_sleep(here);
    offset_seconds->fetch_add(seconds);
  });
}

[[noreturn]] int hang() {
  for (;;) ::pause();
}

/// What a wait of 300 ms ends in during which the clock jumps.
template <class Wait>
bool times_out(long seconds, Wait wait) {
  std::thread jumping = jump_when_asleep(::gettid(), seconds);
  bool timed_out = false;
  try {
    timed_out = wait();
  } catch (const procpool::timeout_error&) {
    timed_out = true;
  }
  jumping.join();
  return timed_out;
}

void waits_end(long seconds) {
  pool_type pool{1};
  auto endless = pool.apply_async(hang);
  check(times_out(seconds, [&] { return endless.wait_for(300ms) == std::future_status::timeout; }), "wait_for ends");
  check(times_out(seconds, [&] { return endless.get(300ms) == 0; }), "get(duration) ends");
  auto lazy = pool.imap([](int) { return hang(); }, std::views::iota(0, 1));
  check(times_out(seconds, [&] { return !lazy.next(300ms).has_value(); }), "next(duration) ends");
  pool.terminate();
}

void time_limits_hold(long seconds) {
  const support::gate started;
  const support::gate jumped;
  pool_type pool{2};
  // One that stays far below its limit, whatever the clock says, and one that runs past it.
  auto brief = pool.with({.timeout = 20s}).apply_async([started = started.in_task(), jumped = jumped.in_task()] {
    started.open();
    jumped.pass();
    return 5;
  });
  started.pass();
  offset_seconds->fetch_add(seconds);
  auto endless = pool.with({.timeout = 300ms}).apply_async(hang);
  bool ended = false;
  try {
    endless.get();
  } catch (const procpool::task_timeout&) {
    ended = true;
  }
  check(ended, "a task that runs past its limit is ended");
  jumped.open();
  try {
    check(brief.get() == 5, "a task below its limit keeps its result");
  } catch (const procpool::error& failure) {
    check(false, failure.what());
  }
  check(pool.stats().workers_crashed == 1, "only the worker of the task that ran too long is killed");
}

void exec_is_noticed(long seconds) {
  pool_type pool{1};
  auto replaced = pool.apply_async([] { return ::execl("/bin/sleep", "sleep", "1000", nullptr); });
  std::thread jumping = jump_when_asleep(::gettid(), seconds);
  bool crashed = false;
  try {
    replaced.get();
  } catch (const procpool::worker_crashed&) {
    crashed = true;
  }
  jumping.join();
  check(crashed, "a worker that runs another program is ended");
}

/// In a process of its own: a pool whose process is stopped for longer than some of its tasks may run.
int stopped_parent(const support::gate& all_started, const support::gate& stopped, const support::gate& enough) {
  pool_type pool{3};
  const auto done_while_stopped = [stopped = stopped.in_task()] {
    stopped.pass();
    return 1;
  };
  const auto measures = [started = all_started.in_task(), stopped = stopped.in_task(), enough = enough.in_task()] {
    started.open();
    stopped.pass();
    const auto begun = std::chrono::steady_clock::now();
    while (std::chrono::steady_clock::now() - begun < 4s) std::this_thread::sleep_for(1ms);
    enough.open();
    return 2;
  };
  auto limited = pool.with({.timeout = 3s}).apply_async(done_while_stopped);
  while (!limited.running()) std::this_thread::sleep_for(1ms);
  auto overrun = pool.with({.timeout = 3s}).apply_async(hang);
  while (!overrun.running()) std::this_thread::sleep_for(1ms);
  auto free = pool.apply_async(measures);
  bool ended = false;
  try {
    overrun.get();
  } catch (const procpool::task_timeout&) {
    ended = true;
  }
  check(ended, "a task that runs past its limit while its pool is stopped is ended");
  try {
    check(limited.get() == 1, "a task that has returned in time keeps its result");
  } catch (const procpool::error& failure) {
    check(false, failure.what());
  }
  check(free.get() == 2, "a task without a limit returns");
  check(pool.stats().workers_crashed == 1, "no worker is killed for nothing");
  return failures;
}

void stop_the_parent() {
  const support::gate started;
  const support::gate stopped;
  const support::gate enough;
  std::fflush(stdout);
  const pid_t parent = ::fork();
  if (parent == 0) {
    ::alarm(30);
    const int failed = stopped_parent(started, stopped, enough);
    std::fflush(stdout);
    ::_exit(failed);
  }
  started.pass();
  ::kill(parent, SIGSTOP);
  support::eventually([&] {
    const auto status = support::status_of(parent);
    return status && status->state == 'T';
  });
  stopped.open();
  enough.pass();
  ::kill(parent, SIGCONT);
  int status = 0;
  ::waitpid(parent, &status, 0);
  check(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a pool whose process was stopped goes on");
  checks += 4;
}

}  // namespace

int main() {
  void* const shared = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return 2;
  offset_seconds = new (shared) std::atomic<long>(0);
  const auto before = std::chrono::system_clock::now();
  offset_seconds->store(3600);
  check(std::chrono::system_clock::now() - before > 50min, "the wall clock is this program's");
  struct sigaction late{};
  late.sa_handler = [](int) {
    constexpr char text[] = "WRONG: something does not end\n";
    [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, text, sizeof(text) - 1);
    ::_exit(1);
  };
  ::sigaction(SIGALRM, &late, nullptr);
  ::alarm(40);
  for (const long seconds : {3600L, -3600L}) {
    for (const auto scenario : {waits_end, time_limits_hold, exec_is_noticed}) {
      offset_seconds->store(0);
      scenario(seconds);
    }
  }
  stop_the_parent();
  std::printf("%d checks, %d wrong\n", checks, failures);
  return failures == 0 ? 0 : 1;
}
