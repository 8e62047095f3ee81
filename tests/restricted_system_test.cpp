// SPDX-License-Identifier: BSL-1.0
// Kernels and containers that refuse system calls: what the pool can do without it does without, the rest is an error.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <ranges>
#include <string>
#include <system_error>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

constexpr std::uint32_t populate_write = 23;  // MADV_POPULATE_WRITE, Linux 5.14

int twice(int x) { return 2 * x; }

/// From now on the system call fails in this process, all its threads, and its children (seccomp(2)); only where its third argument is
/// `third`, if one is given.
bool refuse(long call, int error, std::optional<std::uint32_t> third = {}) {
  const auto number = static_cast<std::uint32_t>(call);
  const auto answer = SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error);
  const auto code = [](int operation) { return static_cast<std::uint16_t>(operation); };
  sock_filter program[] = {
      {code(BPF_LD | BPF_W | BPF_ABS), 0, 0, offsetof(seccomp_data, nr)},
      {code(BPF_JMP | BPF_JEQ | BPF_K), 0, 3, number},
      {code(BPF_LD | BPF_W | BPF_ABS), 0, 0, offsetof(seccomp_data, args) + 2 * sizeof(std::uint64_t)},
      {code(BPF_JMP | (third ? BPF_JEQ : BPF_JGE) | BPF_K), 0, 1, third.value_or(0)},
      {code(BPF_RET | BPF_K), 0, 0, answer},
      {code(BPF_RET | BPF_K), 0, 0, SECCOMP_RET_ALLOW},
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter) == 0;
}

std::string exercise() {
  process_pool pool{2};
  const auto mapped = pool.map(twice, std::views::iota(0, 1000));
  for (int i = 0; i != 1000; ++i) {
    if (mapped[static_cast<std::size_t>(i)] != 2 * i) return "wrong result";
  }
  for (const death& how : all_deaths()) {
    try {
      pool.apply(how.die);
      return "no crash";
    } catch (const worker_crashed&) {
    }
  }
  const std::string large(3'000'000, 'x');
  return pool.apply([](std::string text) { return text; }, large) == large ? "" : "wrong text";
}

/// What the constructor says where a system call fails; "works" if it does all the same.
std::string start_without(long call, int error) {
  return in_child([=] {
    const resources before = resources::now();
    if (!refuse(call, error)) return std::string("no seccomp");
    std::string said = "works";
    try {
      process_pool pool{2};
      if (pool.apply(twice, 4) != 8) said = "wrong result";
    } catch (const worker_start_error& failure) {
      said = failure.what();
    }
    const resources after = resources::once_as(before);
    return after.held == before.held ? said : said + " and left behind: " + resources::added(before, after);
  });
}

bool can_refuse() {
  if (in_child([] { return std::string(refuse(SYS_pidfd_open, ENOSYS) ? "" : "no"); }).empty()) return true;
  WARN("not run: this system has no seccomp filters");
  return false;
}

}  // namespace

TEST_CASE("a pool works without descriptors of processes", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const int error = GENERATE(ENOSYS, EPERM);
  CAPTURE(error);
  CHECK(in_child([=] {
          refuse(SYS_pidfd_open, error);
          return exercise();
        }) == "");
}

TEST_CASE("without descriptors of processes, workers go with a parent that is killed", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const shared_words pids(2);
  const gate ready;
  child_process parent([&]() -> std::string {
    refuse(SYS_pidfd_open, ENOSYS);
    process_pool pool{2};
    pool.broadcast([pids = pids.in_task()] { pids[this_worker::index()] = ::getpid(); });
    ready.open();
    for (;;) ::pause();
  });
  REQUIRE(ready.is_open(20'000));
  ::kill(parent.pid(), SIGKILL);
  for (const auto& pid : pids) CHECK(await_end(pid));
}

TEST_CASE("a pool works on a kernel that cannot populate memory", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const int error = GENERATE(EINVAL, ENOSYS, EPERM);
  CAPTURE(error);
  CHECK(in_child([=] {
          refuse(SYS_madvise, error, populate_write);
          return exercise();
        }) == "");
}

TEST_CASE("results are read while those behind them are not there, nor memory for them", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          refuse(SYS_madvise, EPERM, populate_write);
          const gate read;
          process_pool pool{1};
          constexpr int count = 2000;
          auto results = pool.with({.buffersize = count})
                             .imap(
                                 [read = read.in_task()](int x) {
                                   if (x == 100) read.pass();
                                   return 2 * x;
                                 },
                                 std::views::iota(0, count), count);
          for (int i = 0; i != count; ++i) {
            if (i == 100) read.open();
            if (results.next(20s) != 2 * i) return "wrong result";
          }
          return "";
        }) == "");
}

TEST_CASE("memory that is full is an error of the task", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  // What the kernel answers where the memory of a control group or a tmpfs is used up.
  const int error = GENERATE(EFAULT, ENOMEM, EHWPOISON);
  CAPTURE(error);
  CHECK(in_child([=] {
          // The workers' from the start; the pool's own once it is there, as it cannot start without any memory.
          process_pool pool{
              pool_options{.processes = 2, .initializer = [error] { refuse(SYS_madvise, error, populate_write); }}};
          refuse(SYS_madvise, error, populate_write);
          const std::string large(3'000'000, 'x');
          try {
            pool.apply([](std::string text) { return text.size(); }, large);
            return std::string("the argument went through");
          } catch (const out_of_shared_memory&) {
          }
          try {
            pool.apply([] { return std::string(3'000'000, 'x'); });
            return std::string("the result went through");
          } catch (const out_of_shared_memory&) {
          }
          // Small ones need no more memory, and the pool goes on.
          if (pool.apply(twice, 4) != 8) return std::string("wrong result");
          return pool.stats().workers_crashed == 0 ? std::string() : std::string("a worker died");
        }) == "");
}

TEST_CASE("rings that get no more memory go round in what they have", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const bool of_worker = GENERATE(false, true);
  CAPTURE(of_worker);
  CHECK(in_child([=]() -> std::string {
          process_pool pool{1};
          const bool refused = of_worker ? pool.apply([] { return refuse(SYS_madvise, ENOMEM, populate_write); })
                                         : refuse(SYS_madvise, ENOMEM, populate_write);
          if (!refused) return "no seccomp";
          // Many at once, each of up to half of what a ring has: as arguments, as results, and of one job.
          std::vector<future<std::string>> echoed;
          for (std::size_t i = 0; i != 2000; ++i) {
            echoed.push_back(pool.apply_async([](std::string text) { return text; }, std::string(i % 1900, 'x')));
          }
          for (std::size_t i = 0; i != echoed.size(); ++i) {
            if (echoed[i].get() != std::string(i % 1900, 'x')) return "wrong text";
          }
          const auto texts = pool.map([](std::size_t i) { return std::string(i % 1900, 'y'); },
                                      std::views::iota(std::size_t{0}, std::size_t{2000}));
          for (std::size_t i = 0; i != texts.size(); ++i) {
            if (texts[i] != std::string(i % 1900, 'y')) return "wrong text of a map";
          }
          // One that is larger than all that a ring has is an error of its own.
          auto before = pool.apply_async(twice, 1);
          auto large = of_worker ? pool.apply_async([] { return std::string(20'000, 'x'); })
                                 : pool.apply_async([](std::string text) { return text.substr(0, 1); },
                                                    std::string(20'000, 'x'));
          auto behind = pool.apply_async(twice, 2);
          try {
            large.get();
            return "it went through";
          } catch (const out_of_shared_memory&) {
          }
          if (before.get() != 2 || behind.get() != 4 || pool.apply(twice, 4) != 8) return "wrong result";
          return pool.stats().workers_crashed == 0 ? "" : "a worker died";
        }) == "");
}

TEST_CASE("memory that is full when a worker is to start is an error of the start", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const int error = GENERATE(EFAULT, ENOMEM);
  CAPTURE(error);
  CHECK(in_child([=] {
          refuse(SYS_madvise, error, populate_write);
          try {
            process_pool pool{2};
            return std::string("it has started");
          } catch (const worker_start_error& failure) {
            const std::string said = failure.what();
            return said.find("no memory for the lane of a worker") != std::string::npos ? std::string() : said;
          }
        }) == "");
}

TEST_CASE("without memfd_create there is no shared array, and all else works", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const int error = GENERATE(ENOSYS, EPERM);
  CAPTURE(error);
  CHECK(in_child([=] {
          refuse(SYS_memfd_create, error);
          process_pool pool{2};
          try {
            pool.make_shared_array<int>(10);
            return std::string("there is one");
          } catch (const std::system_error& failure) {
            if (failure.code().value() != error) return std::string(failure.what());
          }
          try {
            pool.apply([] { return make_shared_array<int>(10); });
            return std::string("there is one in a task");
          } catch (const std::system_error& failure) {
            if (failure.code().value() != error) return std::string(failure.what());
          }
          return pool.apply(twice, 4) == 8 ? std::string() : std::string("wrong result");
        }) == "");
}

TEST_CASE("what a pool cannot do without makes the constructor throw", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  const auto check = [](long call, int error, const char* text) {
    CHECK_THAT(start_without(call, error),
               Catch::StartsWith("procpool: ") && Catch::Contains(text) && !Catch::Contains("left behind"));
  };
  check(SYS_socketpair, EMFILE, "socketpair");
  check(SYS_eventfd2, ENFILE, "eventfd");
  check(SYS_epoll_create1, ENOMEM, "epoll_create1");
  check(SYS_clone, EAGAIN, "Resource temporarily unavailable");
  check(SYS_sendmsg, EPERM, "");
  check(SYS_recvmsg, EPERM, "");
}

TEST_CASE("what a pool can do without is not missed", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  CHECK(start_without(SYS_clone3, ENOSYS) == "works");
  CHECK(start_without(SYS_pidfd_open, EPERM) == "works");
  CHECK(start_without(SYS_setpgid, EPERM) == "works");
  CHECK(start_without(SYS_ppoll, ENOMEM) == "works");
}

TEST_CASE("whoever waits sleeps where ppoll is refused, too", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          process_pool pool{1};
          refuse(SYS_ppoll, EPERM);
          for (int i = 0; i != 20; ++i) {
            if (!pool.apply([parent = ::getpid()] { return await_threads_asleep(parent); })) return "never slept";
          }
          return "";
        }) == "");
}

TEST_CASE("a pool that may not kill leaves no worker behind all the same", "[process_pool][restricted]") {
  if (!can_refuse()) return;
  resources_unchanged guard;
  CHECK(in_child([] {
          refuse(SYS_kill, EPERM);
          const gate started;
          process_pool pool{2};
          auto endless = pool.apply_async([started = started.in_task()] {
            started.open();
            for (;;) ::pause();
          });
          if (!started.is_open(20'000)) return std::string("not started");
          pool.terminate();
          try {
            endless.get();
            return std::string("it ended");
          } catch (const pool_terminated&) {
            return std::string();
          }
        }) == "");
}
