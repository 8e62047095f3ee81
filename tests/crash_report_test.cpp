// SPDX-License-Identifier: BSL-1.0
// worker_crashed::fault_address() and backtrace().
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <ranges>
#include <string>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/resources_unchanged.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;

namespace {

[[gnu::noinline]] int write_to(std::uintptr_t address) {
  *reinterpret_cast<volatile int*>(address) = 1;
  return 1;
}
[[gnu::noinline]] int find_the_way_in(std::uintptr_t address) { return write_to(address) + 1; }

[[gnu::noinline]] int recurse(int depth) {
  if (depth < 0) return 0;  // not before the stack is used up
  volatile char room[4096];
  room[0] = static_cast<char>(depth);
  return recurse(depth + 1) + room[0];
}
[[gnu::noinline]] int give_up() { std::abort(); }

bool mentions(const std::vector<std::string>& frames, const std::string& name) {
  return std::ranges::any_of(frames, [&](const std::string& each) { return each.find(name) != std::string::npos; });
}
std::string joined(const std::vector<std::string>& frames) {
  std::string all;
  for (const auto& each : frames) all += each + "\n";
  return all;
}

}  // namespace

TEST_CASE("a fault is told with its address and where it happened, innermost first", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  for (int round = 0; round != 3; ++round) {
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply(find_the_way_in, std::uintptr_t{0x1230}); });
    CHECK(crash.signal() == SIGSEGV);
    CHECK(crash.fault_address() == reinterpret_cast<void*>(0x1230));
    const auto frames = crash.backtrace();
    INFO(joined(frames));
    REQUIRE(frames.size() >= 3);
    CHECK(frames[0].find("write_to(unsigned long)") != std::string::npos);
    CHECK(frames[1].find("find_the_way_in(unsigned long)") != std::string::npos);
    CHECK(frames[0].find("(crash_report_test)") != std::string::npos);
  }
}

TEST_CASE("running out of stack is told too", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto crash = thrown_by<worker_crashed>([&] { pool.apply(recurse, 0); });
  CHECK(crash.signal() == SIGSEGV);
  CHECK(crash.fault_address() != nullptr);
  const auto frames = crash.backtrace();
  INFO(joined(frames));
  REQUIRE(frames.size() > 10);
  CHECK(frames[0].find("recurse(int)") != std::string::npos);
  CHECK(frames[9].find("recurse(int)") != std::string::npos);
}

TEST_CASE("abort() leaves a backtrace and no address", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto crash = thrown_by<worker_crashed>([&] { pool.apply(give_up); });
  CHECK(crash.signal() == SIGABRT);
  CHECK(crash.fault_address() == nullptr);
  INFO(joined(crash.backtrace()));
  CHECK(mentions(crash.backtrace(), "abort"));
  CHECK(mentions(crash.backtrace(), "give_up()"));
}

TEST_CASE("every fatal signal ends the worker with that signal, and is reported", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGTRAP}) {
    CAPTURE(signal);
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply([](int which) { ::raise(which); }, signal); });
    CHECK(crash.signal() == signal);
    CHECK(crash.fault_address() == nullptr);  // nothing was touched
    CHECK_FALSE(crash.backtrace().empty());
  }
}

TEST_CASE("a bus error has its address", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto crash = thrown_by<worker_crashed>([&] {
    pool.apply([] {
      const int fd = ::memfd_create("short", 0);
      void* const page = ::mmap(reinterpret_cast<void*>(0x7000'0000'0000), 4096, PROT_READ | PROT_WRITE,
                                MAP_SHARED | MAP_FIXED, fd, 0);
      *static_cast<volatile int*>(page) = 1;
    });
  });
  CHECK(crash.signal() == SIGBUS);
  CHECK(crash.fault_address() == reinterpret_cast<void*>(0x7000'0000'0000));
}

TEST_CASE("deaths that leave no trace have none", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  for (void (*die)() : {+[] { ::raise(SIGKILL); }, +[] { ::raise(SIGTERM); }, +[] { ::_exit(3); }}) {
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply(die); });
    CHECK(crash.backtrace().empty());
    CHECK(crash.fault_address() == nullptr);
  }
}

TEST_CASE("a thread of the task that crashes is the one that is told of", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto crash = thrown_by<worker_crashed>([&] {
    pool.apply([] {
      std::thread([] { find_the_way_in(0x4560); }).join();
      return 1;
    });
  });
  CHECK(crash.fault_address() == reinterpret_cast<void*>(0x4560));
  CHECK(mentions(crash.backtrace(), "write_to"));
}

TEST_CASE("a child of the task that crashes does not report for the worker", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  int status = 0;
  status = pool.apply([] {
    const pid_t child = ::fork();
    if (child == 0) {
      find_the_way_in(0x4560);
      ::_exit(0);
    }
    int ended = 0;
    ::waitpid(child, &ended, 0);
    return ended;
  });
  CHECK(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGSEGV);
  const auto crash = thrown_by<worker_crashed>([&] { pool.apply([] { ::raise(SIGKILL); }); });
  CHECK(crash.backtrace().empty());
}

TEST_CASE("a jump to nowhere is told", "[worker_crashed]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto crash = thrown_by<worker_crashed>(
      [&] { pool.apply([](std::uintptr_t where) { reinterpret_cast<void (*)()>(where)(); }, std::uintptr_t{0x5000}); });
  CHECK(crash.signal() == SIGSEGV);
  CHECK(crash.fault_address() == reinterpret_cast<void*>(0x5000));
  REQUIRE_FALSE(crash.backtrace().empty());
  CHECK(crash.backtrace()[0] == "0x5000");
}

TEST_CASE("a copied error keeps its report, also after the pool", "[worker_crashed]") {
  std::exception_ptr kept;
  {
    process_pool pool{1};
    try {
      pool.apply(find_the_way_in, std::uintptr_t{0x40});
    } catch (const worker_crashed& crash) {
      kept = std::make_exception_ptr(worker_crashed(crash));
    }
  }
  const auto crash = held_by<worker_crashed>(kept);
  CHECK(crash.fault_address() == reinterpret_cast<void*>(0x40));
  CHECK(mentions(crash.backtrace(), "write_to"));
}
