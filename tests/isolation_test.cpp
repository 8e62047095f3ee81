// SPDX-License-Identifier: BSL-1.0
// What a task can do to the memory that it shares with the parent: its own worker's lane, and no more than fail.
#include <signal.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <ranges>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/eventually.hpp"
#include "support/lane_memory.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

/// Made before the pool of a test; the tasks have it by the snapshot.
const lane_memory* memory_of_pool = nullptr;

std::vector<shared_range> lane_ranges() { return memory_of_pool->halves(); }
shared_range own_replies() { return memory_of_pool->replies(); }
shared_range own_requests() { return memory_of_pool->requests(); }

volatile unsigned char* pointer(std::uint64_t address) {
  return reinterpret_cast<volatile unsigned char*>(static_cast<std::uintptr_t>(address));
}
__attribute__((no_sanitize("address", "undefined"))) int read_at(std::uint64_t address) { return *pointer(address); }
__attribute__((no_sanitize("address", "undefined"))) int write_at(std::uint64_t address) {
  *pointer(address) = 1;
  return 1;
}

int twice(int x) { return 2 * x; }

/// Whether the call ends a worker by SIGSEGV.
template <class Call>
bool faults(Call call) {
  try {
    call();
  } catch (const worker_crashed& crash) {
    return crash.signal() == SIGSEGV;
  }
  return false;
}

}  // namespace

TEST_CASE("a worker maps its own lane only, and may not write its requests", "[process_pool][isolation]") {
  resources_unchanged guard;
  const shared_words arrived(1);
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{4};
  // All four at the same time, so that each reports its own.
  const auto reports = pool.map(
      [arrived = arrived.in_task()](int) {
        ++*arrived;
        eventually([&] { return *arrived == 4; });
        return lane_ranges();
      },
      std::views::iota(0, 4), 1);
  std::vector<shared_range> all;
  for (const auto& lane : reports) {
    CHECK(lane.size() == 2);
    CHECK(std::ranges::count_if(lane, [](const shared_range& each) { return each.writable(); }) == 1);
    CHECK(std::ranges::all_of(lane, [](const shared_range& each) { return each.readable(); }));
    all.insert(all.end(), lane.begin(), lane.end());
  }
  std::ranges::sort(all, {}, &shared_range::begin);
  for (std::size_t i = 1; i < all.size(); ++i) CHECK(all[i - 1].end < all[i].begin);  // a guard page between them
  // The parent sees them all, and as many spare ones, and they are all that there is.
  std::uint64_t in_parent = 0;
  for (const shared_range& each : lane_ranges()) in_parent += each.size();
  std::uint64_t in_workers = 0;
  for (const shared_range& each : all) in_workers += each.size();
  CHECK(2 * in_workers == in_parent);
}

TEST_CASE("large arguments lie in memory that all workers read and none may write",
          "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  const shared_range in_parent = memory.arguments();
  CHECK(in_parent.writable());
  const std::string bytes(100'000, 'x');
  const std::string_view large = bytes;
  const auto address = [](std::string_view text) { return reinterpret_cast<std::uint64_t>(text.data()); };
  for (int worker = 0; worker != 2; ++worker) {
    const shared_range here = pool.apply([] { return memory_of_pool->arguments(); });
    CHECK(here.begin == in_parent.begin);
    CHECK(here.end == in_parent.end);
    CHECK_FALSE(here.writable());
    const std::uint64_t at = pool.apply(address, large);
    CHECK(in_parent.begin <= at);
    CHECK(at + large.size() <= in_parent.end);
    CHECK(faults([&] {
      pool.apply([](std::string_view text) { return write_at(reinterpret_cast<std::uint64_t>(text.data())); }, large);
    }));
  }
  CHECK(faults([&] { pool.apply([] { return read_at(memory_of_pool->arguments().begin - 1); }); }));
  CHECK(faults([&] { pool.apply([] { return read_at(memory_of_pool->arguments().end); }); }));
  // What a task forks has none of it.
  CHECK(pool.apply(
            [](std::string_view text) {
              const pid_t child = ::fork();
              if (child == 0) ::_exit(read_at(reinterpret_cast<std::uint64_t>(text.data())) == 'x' ? 0 : 1);
              int status = 0;
              while (::waitpid(child, &status, 0) == -1) {
              }
              return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
            },
            large) == SIGSEGV);
  CHECK(pool.apply([](std::string_view text) { return std::string(text); }, large) == large);
}

TEST_CASE("to touch another worker's lane is a death", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const shared_words arrived(1);
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  const auto reports = pool.map(
      [arrived = arrived.in_task()](int) {
        ++*arrived;
        eventually([&] { return *arrived == 2; });
        return lane_ranges();
      },
      std::views::iota(0, 2), 1);
  for (const auto& lane : reports) {
    for (const shared_range& each : lane) {
      for (const std::uint64_t at : {each.begin, each.begin + 4096}) {
        // Whichever worker gets it: one of the two has that lane.
        const auto touch = [at, own = each.begin](bool write) {
          const auto mine = lane_ranges();
          if (std::ranges::any_of(mine, [&](const shared_range& one) { return one.begin == own; }))
            throw std::runtime_error("own");
          write ? write_at(at) : read_at(at);
        };
        for (const bool write : {false, true}) {
          for (;;) {
            try {
              pool.apply(touch, write);
              FAIL("the other lane could be touched");
            } catch (const worker_crashed& crash) {
              CHECK(crash.signal() == SIGSEGV);
              break;
            } catch (const std::runtime_error&) {
              // The other worker has to get it: keep this one busy meanwhile.
              auto busy = pool.apply_async([] { eventually([] { return false; }, 5ms); });
            }
          }
        }
      }
    }
  }
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("to write its own requests, or past the ends of its lane, is a death", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  CHECK(faults([&] { pool.apply([] { return write_at(own_requests().begin); }); }));
  CHECK(faults([&] { pool.apply([] { return write_at(own_requests().begin + 64 * 1024); }); }));
  CHECK(faults([&] { pool.apply([] { return write_at(own_requests().end - 1); }); }));
  CHECK(faults([&] { pool.apply([] { return write_at(own_requests().begin - 1); }); }));
  CHECK(faults([&] { pool.apply([] { return write_at(own_replies().begin - 1); }); }));
  CHECK(faults([&] { pool.apply([] { return write_at(own_replies().end); }); }));
  CHECK(pool.apply([] { return read_at(own_requests().begin) >= 0; }));
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("a child of a task has nothing of the lane", "[process_pool][isolation]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{1};
  CHECK(pool.apply([] {
    const shared_range mine = own_replies();
    const pid_t child = ::fork();
    if (child == 0) {
      write_at(mine.begin);
      ::_exit(0);
    }
    int status = 0;
    while (::waitpid(child, &status, 0) == -1) {
    }
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }) == SIGSEGV);
}

TEST_CASE("a child of the application has nothing of the lanes", "[process_pool][isolation]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  CHECK_FALSE(lane_ranges().empty());
  const pid_t child = ::fork();
  if (child == 0) ::_exit(lane_ranges().empty() ? 0 : 1);
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("a task that scribbles over its replies harms no other worker's task", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  // What the worker writes is a stranger's: random bytes, everywhere or here and there, must end in errors only.
  std::mt19937 random(20'240'601);
  for (int round = 0; round != 300; ++round) {
    CAPTURE(round);
    const auto seed = random();
    auto scribbling = pool.apply_async(
        [](std::uint32_t first, int how) {
          std::mt19937 noise(first);
          const shared_range mine = own_replies();
          auto* bytes = const_cast<unsigned char*>(pointer(mine.begin));
          constexpr std::size_t head = 2048;       // published, claimed, state and their like
          constexpr std::size_t all = 200 * 1024;  // and the ring
          const std::size_t area = how % 2 == 0 ? head : all;
          switch (how % 6) {
            case 0:
            case 1:
              std::memset(bytes, 0xff, area);
              break;
            case 2:
            case 3:
              for (std::size_t i = 0; i != area; ++i) bytes[i] = static_cast<unsigned char>(noise());
              break;
            default:
              for (int i = 0; i != 64; ++i) bytes[noise() % area] = static_cast<unsigned char>(noise());
          }
          return 7;
        },
        seed, round);
    std::vector<future<int>> others;
    for (int i = 0; i != 20; ++i) others.push_back(pool.apply_async(twice, i));
    // It must end; in what it ends is open.
    REQUIRE(scribbling.wait_for(20s) == std::future_status::ready);
    for (auto& each : others) {
      REQUIRE(each.wait_for(20s) == std::future_status::ready);
      try {
        static_cast<void>(each.get());
      } catch (const procpool::error&) {  // those that were posted to the scribbler's lane
      }
    }
    REQUIRE(eventually([&] {
      try {
        return pool.apply(twice, 21) == 42;
      } catch (const procpool::error&) {
        return false;
      }
    }));
  }
  // A worker that still runs may have a lane that its task has torn; a fresh one has not.
  for (int i = 0; i != 2; ++i) {
    try {
      pool.broadcast([] { ::raise(SIGKILL); });
    } catch (const procpool::error&) {
    }
  }
  CHECK(pool.map([](int x) { return x; }, std::views::iota(0, 1000)).size() == 1000);
}

TEST_CASE("a worker whose lane changes while the parent reads it", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  for (int round = 0; round != 10; ++round) {
    // A thread that outlives its task goes on writing while results are read.
    auto starting = pool.apply_async([] {
      const shared_range mine = own_replies();
      std::thread([mine] {
        auto* bytes = const_cast<unsigned char*>(pointer(mine.begin));
        std::mt19937 noise(7);
        for (;;) bytes[noise() % (300 * 1024)] = static_cast<unsigned char>(noise());
      }).detach();
      return std::string(1000, 'x');
    });
    std::vector<future<std::vector<std::string>>> others;
    for (int i = 0; i != 30; ++i) {
      others.push_back(pool.apply_async([] { return std::vector<std::string>(100, std::string(50, 'y')); }));
    }
    REQUIRE(starting.wait_for(20s) == std::future_status::ready);
    for (auto& each : others) {
      REQUIRE(each.wait_for(20s) == std::future_status::ready);
      try {
        static_cast<void>(each.get());
      } catch (const procpool::error&) {
      }
    }
    // End of the scribbler, if it is still there.
    try {
      pool.broadcast([] { ::raise(SIGKILL); });
    } catch (const procpool::error&) {
    }
  }
  CHECK(eventually([&] {
    try {
      return pool.apply(twice, 4) == 8;
    } catch (const procpool::error&) {
      return false;
    }
  }));
}

TEST_CASE("what a task sends over the worker's socket harms nobody", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  for (int round = 0; round != 20; ++round) {
    auto sending = pool.apply_async([] {
      const char noise[] = "this is not a message of the pool, and a long one, too, longer than any of them is";
      for (int fd = 3; fd != 100; ++fd) {
        for (std::size_t size = 1; size <= sizeof(noise); size += 11) {
          static_cast<void>(::send(fd, noise, size, MSG_DONTWAIT | MSG_NOSIGNAL));
        }
      }
      return 1;
    });
    REQUIRE(sending.wait_for(20s) == std::future_status::ready);
    for (int i = 0; i != 20; ++i) {
      try {
        CHECK(pool.apply(twice, i) == 2 * i);
      } catch (const worker_crashed&) {  // the pool may kill who sends nonsense
      }
    }
  }
  CHECK(eventually([&] {
    try {
      return pool.apply(twice, 4) == 8;
    } catch (const procpool::error&) {
      return false;
    }
  }));
}
