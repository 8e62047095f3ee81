// SPDX-License-Identifier: BSL-1.0
// Arguments and results of every size over real processes, and shared arrays.
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <memory>
#include <numeric>
#include <optional>
#include <ranges>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/gate.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kib = 1024;
constexpr std::size_t mib = 1024 * kib;

/// Around every size at which something changes on the way.
const std::vector<std::size_t> sizes{0,
                                     1,
                                     63,
                                     64,
                                     65,
                                     4095,
                                     4096,
                                     4097,
                                     32 * kib - 1,
                                     32 * kib,
                                     32 * kib + 1,
                                     64 * kib,
                                     256 * kib - 1,
                                     256 * kib,
                                     256 * kib + 1,
                                     mib,
                                     mib + 7};

/// Bytes that differ from place to place, so that none can be missing, doubled or moved.
char byte_at(std::size_t i) { return static_cast<char>(i * 131 + (i >> 8) * 31 + (i >> 16)); }
std::string text_of_size(std::size_t size) {
  std::string text(size, '\0');
  for (std::size_t i = 0; i != size; ++i) text[i] = byte_at(i);
  return text;
}
bool is_right(std::string_view text, std::size_t size) {
  if (text.size() != size) return false;
  for (std::size_t i = 0; i != size; ++i) {
    if (text[i] != byte_at(i)) return false;
  }
  return true;
}

std::vector<double> doubles_of_size(std::size_t size) {
  std::vector<double> all(size);
  std::iota(all.begin(), all.end(), 0.5);
  return all;
}
bool are_right(std::span<const double> all, std::size_t size) {
  if (all.size() != size) return false;
  for (std::size_t i = 0; i != size; ++i) {
    if (all[i] != static_cast<double>(i) + 0.5) return false;
  }
  return true;
}

bool check_string(const std::string& text, std::size_t size) { return is_right(text, size); }
bool check_view(std::string_view text, std::size_t size) { return is_right(text, size); }
bool check_span(std::span<const double> all, std::size_t size) {
  return are_right(all, size) && reinterpret_cast<std::uintptr_t>(all.data()) % alignof(double) == 0;
}

[[maybe_unused]] std::size_t available_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string name; file >> name;) {
    std::size_t kibibytes = 0;
    if (name == "MemAvailable:" && file >> kibibytes) return kibibytes * kib;
  }
  return 0;
}

/// The descriptors and mappings of shared arrays that this process holds.
std::size_t arrays_held() {
  std::size_t count = 0;
  for (const std::string& each : resources::now().held) {
    if (each.find("memfd:") != std::string::npos && each.starts_with("descriptor")) ++count;
  }
  return count;
}

shared_array<int> before_the_pool;

}  // namespace

TEST_CASE("strings of every size arrive as they were sent", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{2};
  for (const std::size_t size : sizes) {
    CAPTURE(size);
    const std::string text = text_of_size(size);
    CHECK(pool.apply(check_string, text, size));
    CHECK(pool.apply(check_view, text, size));
    CHECK(pool.apply(check_view, std::string_view(text), size));
    CHECK(pool.apply([](std::string back) { return back; }, text) == text);
    CHECK(is_right(pool.apply(text_of_size, size), size));
  }
}

TEST_CASE("vectors and spans of every size arrive as they were sent, and aligned", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{2};
  for (const std::size_t bytes : sizes) {
    const std::size_t size = bytes / sizeof(double);
    CAPTURE(size);
    const std::vector<double> all = doubles_of_size(size);
    CHECK(pool.apply(check_span, std::span(all), size));
    CHECK(pool.apply([](char, std::span<const double> in, std::size_t n) { return check_span(in, n); }, 'x',
                     std::span(all), size));
    CHECK(pool.apply([](std::vector<double> in, std::size_t n) { return are_right(in, n); }, all, size));
    CHECK(are_right(pool.apply(doubles_of_size, size), size));
  }
}

namespace {

struct alignas(64) line {
  std::uint64_t value;
};

}  // namespace

TEST_CASE("views of types with large alignments lie aligned", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{2};
  const auto check = [](std::string_view before, std::span<const line> lines, std::string_view behind) {
    bool right = reinterpret_cast<std::uintptr_t>(lines.data()) % alignof(line) == 0 || lines.empty();
    for (std::size_t i = 0; i != lines.size(); ++i) right = right && lines[i].value == i * i;
    return right && before == "before" && behind == "behind";
  };
  for (const std::size_t size : {0U, 1U, 3U, 500U, 513U, 5000U, 100'000U}) {
    CAPTURE(size);
    std::vector<line> lines(size);
    for (std::size_t i = 0; i != size; ++i) lines[i].value = i * i;
    CHECK(pool.apply(check, std::string_view("before"), std::span<const line>(lines), std::string_view("behind")));
    // Behind each other in one chunk, where each begins elsewhere.
    const std::vector<std::tuple<std::string_view, std::span<const line>, std::string_view>> some(
        5, {"before", lines, "behind"});
    CHECK(std::ranges::count(pool.starmap(check, some, 5), true) == 5);
  }
}

TEST_CASE("payloads of every size travel in chunks of maps", "[process_pool][payload]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{4}, std::size_t{100});
  CAPTURE(chunksize);
  process_pool pool{3};
  std::vector<std::string> texts;
  for (const std::size_t size : sizes) texts.push_back(text_of_size(size));
  for (const std::size_t size : sizes | std::views::reverse) texts.push_back(text_of_size(size));
  const auto self = [](std::string text) { return text; };
  CHECK(pool.map(self, texts, chunksize) == texts);
  CHECK(pool.map([](std::string_view text) { return std::string(text); }, texts, chunksize) == texts);
  std::vector<std::string> lazy;
  for (auto& each : pool.imap(self, texts, std::max<std::size_t>(chunksize, 1))) lazy.push_back(std::move(each));
  CHECK(lazy == texts);
}

TEST_CASE("64 MiB travel each way", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{1};
  constexpr std::size_t size = 64 * mib + 13;
  const std::string text = text_of_size(size);
  for (int round = 0; round != 2; ++round) {
    CHECK(pool.apply(check_view, text, size));
    CHECK(pool.apply([](std::string back) { return back; }, text) == text);
  }
}

TEST_CASE("a gibibyte travels each way", "[process_pool][payload][slow]") {
#if defined(PROCPOOL_TEST_ASAN)
  WARN("not run: it takes too much memory with AddressSanitizer");
#else
  if (available_memory() < 8192 * mib) {
    WARN("not run: there is too little memory");
    return;
  }
  resources_unchanged guard;
  process_pool pool{1};
  constexpr std::size_t size = 1024 * mib + 3;
  {
    const std::string text(size, 'x');
    CHECK(pool.apply([](std::string_view in) { return in.size() == size && in.back() == 'x' && in[size / 2] == 'x'; },
                     text));
  }
  const auto back = pool.apply([] {
    std::vector<char> all(size, 'y');
    return all;
  });
  CHECK(back.size() == size);
  CHECK(back.front() == 'y');
  CHECK(back.back() == 'y');
#endif
}

TEST_CASE("many large results wait for a parent that does not look", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{2};
  for (const std::size_t size : {std::size_t{100}, 20 * kib, 300 * kib, 3 * mib}) {
    CAPTURE(size);
    const auto tasks = std::min<std::size_t>(64 * mib / size, 2000);
    std::vector<future<std::string>> results;
    for (std::size_t i = 0; i != tasks; ++i) results.push_back(pool.apply_async(text_of_size, size));
    // All of them end although none is taken.
    CHECK(eventually([&] { return std::ranges::all_of(results, [](const auto& each) { return each.ready(); }); }));
    for (auto& each : results) CHECK(is_right(each.get(), size));
  }
}

TEST_CASE("many large arguments wait for one worker", "[process_pool][payload]") {
  resources_unchanged guard;
  const gate go;
  process_pool pool{1};
  auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
  std::vector<future<bool>> results;
  for (std::size_t i = 0; i != 200; ++i) {
    const std::size_t size = 500 * kib + i;
    results.push_back(pool.apply_async(check_view, text_of_size(size), size));
  }
  go.open();
  for (auto& each : results) CHECK(each.get());
}

TEST_CASE("the memory of large payloads is used again", "[process_pool][payload]") {
  resources_unchanged guard;
  process_pool pool{1};
  const std::string text = text_of_size(8 * mib);
  const auto round_trips = [&](int count) {
    for (int i = 0; i != count; ++i)
      CHECK(pool.apply([](std::string_view in) { return std::string(in); }, text).size() == 8 * mib);
    return pool.stats().workers[0].resident_bytes;
  };
  const std::size_t after_few = round_trips(5);
  const std::size_t after_many = round_trips(60);
#if defined(PROCPOOL_TEST_ASAN)
  constexpr std::size_t kept = 300 * mib;  // the sanitizer keeps what was freed for a while
#else
  constexpr std::size_t kept = 64 * mib;
#endif
  CHECK(after_many < after_few + kept);
}

TEST_CASE("large payloads and deaths", "[process_pool][payload][crash]") {
  resources_unchanged guard;
  process_pool pool{2};
  std::vector<std::string> texts;
  for (int i = 0; i != 60; ++i) texts.push_back(text_of_size(static_cast<std::size_t>(i) * 20 * kib));
  const auto outcomes = pool.try_map(
      [](std::string text) {
        if (text.size() / (20 * kib) % 7 == 3) ::raise(SIGKILL);
        return text;
      },
      texts, 10);
  for (std::size_t i = 0; i != 60; ++i) {
    CAPTURE(i);
    REQUIRE(outcomes[i].has_value() == (i % 7 != 3));
    if (outcomes[i].has_value()) CHECK(*outcomes[i] == texts[i]);
  }
}

TEST_CASE("a shared array is the same memory in all processes", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{3};
  auto array = pool.make_shared_array<int>(1000);
  CHECK(array.size() == 1000);
  CHECK(std::ranges::count(array, 0) == 1000);
  SECTION("as an argument") {
    pool.starmap([](shared_array<int> to, int i) { to[static_cast<std::size_t>(i)] = i; },
                 std::views::iota(0, 1000) | std::views::transform([&](int i) { return std::tuple(array, i); }), 50);
    for (std::size_t i = 0; i != 1000; ++i) CHECK(array[i] == static_cast<int>(i));
  }
  SECTION("both ways, while a task runs") {
    auto echoing = pool.apply_async(
        [](shared_array<int> both) {
          const std::atomic_ref<int> in(both[0]);
          const std::atomic_ref<int> out(both[1]);
          for (int i = 1; i != 100; ++i) {
            if (!eventually([&] { return in == i; })) return i;
            out.store(i);
          }
          return 0;
        },
        array);
    const std::atomic_ref<int> out(array[0]);
    const std::atomic_ref<int> in(array[1]);
    for (int i = 1; i != 100; ++i) {
      out.store(i);
      REQUIRE(eventually([&] { return in == i || echoing.ready(); }));
    }
    CHECK(echoing.get() == 0);
  }
  SECTION("as a result, the same memory comes back") {
    const auto back = pool.apply(
        [](shared_array<int> in) {
          in[7] = 7;
          return in;
        },
        array);
    CHECK(array[7] == 7);
    CHECK(back.data() == array.data());
    CHECK(back.size() == array.size());
  }
  SECTION("inside of other types") {
    const auto back = pool.apply(
        [](std::pair<shared_array<int>, std::string> in) {
          in.first[1] = static_cast<int>(in.second.size());
          return std::vector{in.first, in.first};
        },
        std::pair(array, std::string("four")));
    CHECK(back.size() == 2);
    CHECK(array[1] == 4);
    CHECK(back[1].data() == array.data());
  }
}

namespace {

struct adds_to {
  shared_array<int> sum;
  int times = 0;
  void operator()(int x) const { std::atomic_ref<int>(sum[0]) += x * times; }
};

}  // namespace

TEST_CASE("a callable may hold a shared array", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{3};
  const adds_to add{pool.make_shared_array<int>(1), 2};
  pool.map(add, std::views::iota(0, 1001));
  CHECK(add.sum[0] == 1'001'000);
  for (int i = 0; i != 100; ++i) pool.apply(add, 1);
  CHECK(add.sum[0] == 1'001'200);
}

TEST_CASE("a task makes a shared array and returns it", "[process_pool][shared_array]") {
  resources_unchanged guard;
  shared_array<double> outlives;
  {
    process_pool pool{2};
    for (const std::size_t size : {std::size_t{0}, std::size_t{1}, std::size_t{1000}, 4 * mib}) {
      const auto array = pool.apply(
          [](std::size_t n) {
            auto made = make_shared_array<double>(n);
            for (std::size_t i = 0; i != n; ++i) made[i] = static_cast<double>(i) + 0.5;
            return made;
          },
          size);
      CHECK(are_right(std::span(array.data(), array.size()), size));
      if (size != 0) outlives = array;
    }
    const auto many = pool.map(
        [](int i) {
          auto made = make_shared_array<int>(10);
          made[9] = i;
          return made;
        },
        std::views::iota(0, 300), 30);
    for (int i = 0; i != 300; ++i) CHECK(many[static_cast<std::size_t>(i)][9] == i);
    CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
  }
  CHECK(are_right(std::span(outlives.data(), outlives.size()), 4 * mib));
}

TEST_CASE("a shared array made before the pool is in the snapshot and can be sent", "[process_pool][shared_array]") {
  resources_unchanged guard;
  before_the_pool = make_shared_array<int>(10);
  {
    process_pool pool{2};
    pool.apply([] { before_the_pool[3] = 3; });
    CHECK(before_the_pool[3] == 3);
    CHECK(pool.apply([](shared_array<int> sent) { return sent.data() == before_the_pool.data(); }, before_the_pool));
  }
  before_the_pool = {};
}

TEST_CASE("shared arrays are freed with their last handle", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{2};
  const std::size_t before = arrays_held();
  const std::size_t before_in_workers = pool.apply(arrays_held) + pool.apply(arrays_held);
  for (int round = 0; round != 100; ++round) {
    auto sent = pool.make_shared_array<int>(100'000);
    auto made = pool.apply(
        [](shared_array<int> in) {
          in[5] = 5;
          return make_shared_array<int>(in.size());
        },
        sent);
    CHECK(made.size() == 100'000);
  }
  CHECK(eventually([&] { return arrays_held() == before; }));  // the pool's own handles go behind the result
  CHECK(eventually([&] {
    const auto in_workers = pool.map([](int) { return arrays_held(); }, std::views::iota(0, 20), 1);
    return std::ranges::all_of(in_workers, [&](std::size_t each) { return each <= before_in_workers; });
  }));
  // Also if the worker that held it dies, with a result on its way or not.
  for (int round = 0; round != 20; ++round) {
    auto sent = pool.make_shared_array<int>(100'000);
    CHECK_THROWS_AS(pool.apply(
                        [](shared_array<int> in) {
                          static shared_array<int> kept;
                          kept = in;
                          auto own = make_shared_array<int>(5);
                          ::raise(SIGKILL);
                          return own;
                        },
                        sent),
                    worker_crashed);
  }
  CHECK(eventually([&] { return arrays_held() == before; }));
}

TEST_CASE("a shared array survives the worker that made it", "[process_pool][shared_array][crash]") {
  resources_unchanged guard;
  process_pool pool{1};
  const auto array = pool.apply([] {
    auto made = make_shared_array<int>(100);
    std::ranges::fill(made, 6);
    return made;
  });
  CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
  CHECK(std::ranges::count(array, 6) == 100);
  CHECK(pool.apply([](shared_array<int> in) { return std::ranges::count(in, 6); }, array) == 100);
}

TEST_CASE("a worker keeps a shared array that outlives the parent's handle", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{1};
  {
    auto array = pool.make_shared_array<int>(10);
    array[0] = 17;
    pool.apply(
        [](shared_array<int> in) {
          before_the_pool = in;  // in the worker's copy of the program
        },
        array);
  }
  CHECK(before_the_pool.empty());
  CHECK(pool.apply([] { return before_the_pool[0]; }) == 17);
}

TEST_CASE("one task with hundreds of shared arrays", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{1};
  std::vector<shared_array<int>> arrays;
  for (int i = 0; i != 500; ++i) {
    arrays.push_back(make_shared_array<int>(1));
    arrays.back()[0] = i;
  }
  const auto back = pool.apply(
      [](std::vector<shared_array<int>> in) {
        for (auto& each : in) each[0] *= 2;
        return in;
      },
      arrays);
  REQUIRE(back.size() == 500);
  for (int i = 0; i != 500; ++i) CHECK(arrays[static_cast<std::size_t>(i)][0] == 2 * i);
}

TEST_CASE("thousands of tasks with the same shared array", "[process_pool][shared_array]") {
  resources_unchanged guard;
  const std::size_t chunksize = GENERATE(std::size_t{0}, std::size_t{1}, std::size_t{1000}, std::size_t{20'000});
  CAPTURE(chunksize);
  process_pool pool{2};
  auto sum = pool.make_shared_array<long>(1);
  const auto add = [](shared_array<long> to, long i) { std::atomic_ref<long>(to[0]) += i; };
  pool.starmap(add, std::views::iota(0L, 20'000L) | std::views::transform([&](long i) { return std::tuple(sum, i); }),
               chunksize);
  CHECK(sum[0] == 199'990'000);
}

TEST_CASE("thousands of shared arrays as results", "[process_pool][shared_array]") {
  resources_unchanged guard;
  process_pool pool{2};
  const auto make = [](int i) {
    auto made = make_shared_array<int>(1);
    made[0] = i;
    return made;
  };
  int expected = 0;
  for (const auto& each : pool.imap(make, std::views::iota(0, 5000), 20)) CHECK(each[0] == expected++);
  CHECK(expected == 5000);
}

TEST_CASE("tasks with shared arrays that were never run give them back", "[process_pool][shared_array]") {
  resources_unchanged guard;
  const std::size_t before = arrays_held();
  const gate go;
  {
    process_pool pool{1};
    auto blocking = pool.apply_async([go = go.in_task()] { go.pass(); });
    REQUIRE(eventually([&] { return blocking.running(); }));
    std::vector<future<void>> results;
    for (int i = 0; i != 50; ++i) {
      results.push_back(pool.apply_async([](shared_array<int>) {}, pool.make_shared_array<int>(10)));
    }
    for (auto& each : results) CHECK(each.cancel());
    results.clear();
    CHECK(arrays_held() == before);
    go.open();
  }
  CHECK(arrays_held() == before);
}
