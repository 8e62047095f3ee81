// SPDX-License-Identifier: BSL-1.0
// Large arguments lie in memory of the pool's that all workers read (detail/shared_memory/argument_memory.hpp): they stay
// where they are whatever becomes of the workers, and go with their tasks.
#include <procpool/detail/shared_memory/argument_memory.hpp>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <ranges>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/lane_memory.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using detail::argument_memory;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/// Bytes that tell one from another.
std::string text_of(std::size_t size, int which) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i != size; ++i)
    text[i] = static_cast<char>(i * 131 + (i >> 9) + static_cast<std::size_t>(which) * 17);
  return text;
}

std::uint64_t address_of(std::string_view text) { return reinterpret_cast<std::uint64_t>(text.data()); }

}  // namespace

TEST_CASE("memory for arguments is unmapped with the pool, or with the last block", "[argument_memory]") {
  resources_unchanged guard;
  const lane_memory before;
  {
    argument_memory memory(64 * mib, 16 * mib);
    CHECK(before.ranges().size() == 1);
    SECTION("nothing lies there") {
      memory.release();
      CHECK(before.ranges().empty());
    }
    SECTION("a block does") {
      std::byte* const block = memory.allocate(mib);
      REQUIRE(block != nullptr);
      CHECK(memory.holds(block));
      CHECK(memory.holds(block + mib - 1));
      memory.release();
      std::memset(block, 1, mib);
      CHECK(memory.allocate(100) == nullptr);
      memory.deallocate(block);
      CHECK(before.ranges().empty());
    }
    CHECK(memory.allocate(100) == nullptr);
  }
}

TEST_CASE("memory for arguments is given out up to what is kept, or for one block", "[argument_memory]") {
  argument_memory memory(64 * mib, 16 * mib);
  std::byte* const large = memory.allocate(32 * mib);
  REQUIRE(large != nullptr);
  CHECK(memory.allocate(mib) == nullptr);
  memory.deallocate(large);
  std::vector<std::byte*> blocks;
  while (std::byte* const block = memory.allocate(mib)) blocks.push_back(block);
  CHECK(blocks.size() >= 14);
  CHECK(blocks.size() <= 16);
  memory.deallocate(blocks.back());
  CHECK((blocks.back() = memory.allocate(mib)) != nullptr);
  for (std::byte* const block : blocks) memory.deallocate(block);
  CHECK(memory.allocate(65 * mib) == nullptr);
  const std::string on_stack;
  CHECK_FALSE(memory.holds(reinterpret_cast<const std::byte*>(&on_stack)));
  CHECK_FALSE(memory.holds(nullptr));
}

TEST_CASE("without address space there is no memory for arguments, and no error", "[argument_memory]") {
  argument_memory memory(std::size_t{1} << 50, mib);
  CHECK(memory.allocate(100) == nullptr);
  CHECK_FALSE(memory.holds(nullptr));
  CHECK(memory.enter());
  memory.settle_in();
  memory.release();
}

TEST_CASE("a forked process that has blocks of its parent's leaves them alone", "[argument_memory]") {
  argument_memory memory(64 * mib, 16 * mib);
  memory.settle_in();
  std::byte* const block = memory.allocate(mib);
  REQUIRE(block != nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    memory.deallocate(block);
    ::_exit(0);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  memory.deallocate(block);
}

TEST_CASE("threads use the memory for arguments at the same time", "[argument_memory]") {
  argument_memory memory(64 * mib, 64 * mib);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4);
  for (std::size_t which = 0; which != 4; ++which) {
    threads.emplace_back([&memory, &mistakes = wrong[which], which] {
      for (std::size_t i = 0; i != 300; ++i) {
        const std::size_t size = 1000 + i * 331 % 200'000;
        std::byte* const block = memory.allocate(size);
        if (block == nullptr) {
          ++mistakes;
          continue;
        }
        std::memset(block, static_cast<int>(which), size);
        const auto is_mine = [which](std::byte each) { return each == static_cast<std::byte>(which); };
        if (!std::all_of(block, block + size, is_mine)) ++mistakes;
        memory.deallocate(block);
      }
    });
  }
  for (std::thread& each : threads) each.join();
  CHECK(wrong == std::vector<int>(4));
}

TEST_CASE("the memory of an argument is free when its task has ended, though the future lives", "[argument_memory]") {
  resources_unchanged guard;
  process_pool pool{2};
  const std::string text = text_of(4 * mib, 1);
  std::vector<future<std::uint64_t>> kept;
  std::set<std::uint64_t> addresses;
  for (int i = 0; i != 30; ++i) {
    kept.push_back(pool.apply_async(address_of, text));
    kept.back().wait();
  }
  for (auto& each : kept) addresses.insert(each.get());
  CHECK(addresses.size() == 1);
}

TEST_CASE("futures of tasks with large arguments that outlive the pool hold none of its memory", "[argument_memory]") {
  const gate go;
  resources_unchanged guard;
  std::vector<future<std::size_t>> futures;
  const auto size_of = [](std::string_view text) { return text.size(); };
  const std::string bytes = text_of(mib, 2);
  const std::string_view text = bytes;
  {
    process_pool pool{1};
    futures.push_back(pool.apply_async(size_of, text));
    futures.push_back(pool.apply_async([](std::string_view) -> std::size_t { throw 1; }, text));
    futures.push_back(pool.apply_async(
        [](std::string_view) -> std::size_t {
          ::raise(SIGKILL);
          return 0;
        },
        text));
    futures.push_back(pool.with({.retries = 1}).apply_async([](std::string_view) -> std::size_t { ::abort(); }, text));
    auto blocking = pool.apply_async([go = go.in_task()](std::string_view) { go.pass(); }, text);
    REQUIRE(eventually([&] { return blocking.running(); }));
    futures.push_back(pool.apply_async(size_of, text));
    CHECK(futures.back().cancel());
    futures.push_back(pool.apply_async(size_of, text));
    CHECK(blocking.cancel());  // kills it
    blocking.wait();
    pool.close();
    CHECK_THROWS_AS(pool.apply_async(size_of, text), pool_closed);
    pool.join();
    CHECK_THROWS_AS(pool.apply_async(size_of, text), pool_closed);  // encoded where there is nothing any more
  }
  {
    process_pool pool{1};
    auto running = pool.apply_async(
        [](std::string_view) -> std::size_t {
          for (;;) ::pause();
        },
        text);
    REQUIRE(eventually([&] { return running.running(); }));
    futures.push_back(std::move(running));
    for (int i = 0; i != 5; ++i) futures.push_back(pool.apply_async(size_of, text));
    pool.terminate();
  }
  guard.check();  // while all of them live
  CHECK(futures.front().get() == mib);
  CHECK(futures[5].get() == mib);
  CHECK_THROWS_AS(futures.back().get(), pool_terminated);
}

TEST_CASE("a large argument is the same whichever worker gets it, after deaths too", "[argument_memory][crash]") {
  resources_unchanged guard;
  const shared_words runs(40);
  process_pool pool{3};
  std::vector<std::string> texts;
  for (int i = 0; i != 40; ++i) texts.push_back(text_of(100'000 + static_cast<std::size_t>(i) * 10'007, i));
  const auto outcomes = pool.with({.retries = 2})
                            .try_map(
                                [counts = runs.in_task()](std::string text) {
                                  const int which = static_cast<int>((text.size() - 100'000) / 10'007);
                                  if (++counts[which] <= which % 3) ::raise(SIGKILL);
                                  return text;
                                },
                                texts, 4);
  for (std::size_t i = 0; i != 40; ++i) {
    CAPTURE(i);
    REQUIRE(outcomes[i].has_value());
    CHECK(*outcomes[i] == texts[i]);
    CHECK(runs[i] == static_cast<int>(i % 3) + 1);
  }
}

TEST_CASE("large arguments are taken back from a slow worker, and not copied for that", "[argument_memory]") {
  resources_unchanged guard;
  const gate go;
  const lane_memory memory;
  process_pool pool{2};
  const auto echo = [](std::string_view text) { return std::pair(address_of(text), std::string(text)); };
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  REQUIRE(eventually([&] { return blocking.running(); }));
  std::vector<future<std::pair<std::uint64_t, std::string>>> results;
  for (int i = 0; i != 60; ++i) results.push_back(pool.apply_async(echo, std::string_view(text_of(200'000, i))));
  for (int i = 0; i != 60; ++i) {  // half of them were posted behind the one that blocks
    const auto [address, text] = results[static_cast<std::size_t>(i)].get();
    CHECK(text == text_of(200'000, i));
    CHECK(memory.arguments().begin <= address);
    CHECK(address < memory.arguments().end);
  }
  CHECK_FALSE(blocking.ready());
  go.open();
}

#if !defined(PROCPOOL_TEST_ASAN)  // which needs more address space than this leaves
TEST_CASE("where the memory for arguments is full, they wait on the heap", "[argument_memory][memory]") {
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          const rlimit little{rlim_t{1} << 28, rlim_t{1} << 28};  // arenas of 8 MiB
          if (::setrlimit(RLIMIT_AS, &little) != 0) return "setrlimit";
          const gate go;
          const lane_memory memory;
          process_pool pool{1};
          const auto area = memory.arguments();
          if (area.size() > 9 * mib) return "there is more memory than this test believes";
          auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
          std::vector<future<std::pair<std::uint64_t, std::string>>> results;
          for (int i = 0; i != 30; ++i) {
            results.push_back(
                pool.apply_async([](std::string_view text) { return std::pair(address_of(text), std::string(text)); },
                                 std::string_view(text_of(mib, i))));
          }
          go.open();
          int inside = 0;
          for (int i = 0; i != 30; ++i) {
            const auto [address, text] = results[static_cast<std::size_t>(i)].get();
            if (text != text_of(mib, i)) return "wrong text";
            if (area.begin <= address && address < area.end) ++inside;
          }
          if (inside == 0 || inside == 30) return std::to_string(inside) + " of 30 lay there";
          return "";
        }) == "");
}
#endif
