// SPDX-License-Identifier: BSL-1.0
// What a task that writes anywhere in the pool's memory can hit: its own worker's replies, and nothing else. Every page
// of what the parent maps for the lanes and for large arguments, guards and neighbours included, is tried from inside a
// worker: read, written, run.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/eventually.hpp"
#include "support/lane_memory.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"

using namespace procpool;
using namespace support;

namespace {

constexpr std::uint64_t page = 4096;

#define NOT_SANITIZED __attribute__((no_sanitize("address", "undefined"), noinline))

// ---- in a worker: one try at an address, that the worker survives --------------------------------------------------

sigjmp_buf tried;
void give_up(int) { ::siglongjmp(tried, 1); }

/// SIGSEGV and SIGBUS end the try they occur in.
class surviving {
 public:
  surviving() {
    struct sigaction action{};
    action.sa_handler = give_up;
    action.sa_flags = SA_NODEFER;
    ::sigaction(SIGSEGV, &action, &segv_);
    ::sigaction(SIGBUS, &action, &bus_);
  }
  surviving(const surviving&) = delete;
  surviving& operator=(const surviving&) = delete;
  ~surviving() {
    ::sigaction(SIGSEGV, &segv_, nullptr);
    ::sigaction(SIGBUS, &bus_, nullptr);
  }

 private:
  struct sigaction segv_{};
  struct sigaction bus_{};
};

NOT_SANITIZED unsigned char read_at(std::uint64_t at) { return *reinterpret_cast<volatile unsigned char*>(at); }
NOT_SANITIZED void write_at(std::uint64_t at, unsigned char value) {
  *reinterpret_cast<volatile unsigned char*>(at) = value;
}
NOT_SANITIZED void run_at(std::uint64_t at) { reinterpret_cast<void (*)()>(at)(); }

NOT_SANITIZED bool can_read(std::uint64_t at) {
  if (sigsetjmp(tried, 1) != 0) return false;
  static_cast<void>(read_at(at));
  return true;
}
/// Leaves the byte as it is.
NOT_SANITIZED bool can_write(std::uint64_t at) {
  if (!can_read(at)) {
    if (sigsetjmp(tried, 1) != 0) return false;
    write_at(at, 1);
    return true;
  }
  if (sigsetjmp(tried, 1) != 0) return false;
  write_at(at, read_at(at));
  return true;
}

struct found {
  std::uint64_t pages = 0;
  std::uint64_t readable = 0;
  std::uint64_t writable = 0;
  std::uint64_t wrong = 0;  ///< could be read or written otherwise than it should
  std::size_t worker = 0;
};

/// Memory that the worker maps for itself after it was started. The kernel puts it where addresses are free.
class own_mappings {
 public:
  own_mappings() {
    for (auto& each : each_) each = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  own_mappings(const own_mappings&) = delete;
  own_mappings& operator=(const own_mappings&) = delete;
  ~own_mappings() {
    for (auto& each : each_) ::munmap(each, bytes);
  }

 private:
  static constexpr std::size_t bytes = 16 * page;
  std::array<void*, 16> each_{};
};

struct span_of_pages {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t step = page;
};

const lane_memory* lanes = nullptr;  // for tasks

/// Tries to read and to write a byte in every page.
found probe(const std::vector<span_of_pages>& areas) {
  const shared_range replies = lanes->replies();
  const shared_range requests = lanes->requests();
  const shared_range arguments = lanes->arguments();
  const auto inside = [](const shared_range& range, std::uint64_t at) { return range.begin <= at && at < range.end; };
  const surviving here;
  const own_mappings later;
  found all;
  all.worker = this_worker::index();
  for (const span_of_pages& where : areas) {
    for (std::uint64_t at = where.begin; at < where.end; at += where.step) {
      // Not where the pages begin: the byte in a page in use is one that the worker itself does not write meanwhile.
      const std::uint64_t byte = at + page - 1;
      const bool writable = can_write(byte);
      const bool readable = can_read(byte);
      ++all.pages;
      all.writable += writable ? 1U : 0U;
      all.readable += readable ? 1U : 0U;
      const bool to_be_read = inside(replies, byte) || inside(requests, byte) || inside(arguments, byte);
      if (writable != inside(replies, byte) || readable != to_be_read) ++all.wrong;
    }
  }
  return all;
}

/// The memory of the pool in this process, the parent: the lanes and the arguments, each from the first guard page to the
/// last, or both at once.
std::vector<span_of_pages> all_areas(const lane_memory& memory, std::uint64_t step) {
  std::vector<span_of_pages> all;
  for (const shared_range& each : memory.ranges()) {
    if (all.empty() || all.back().end != each.begin) all.push_back({each.begin, each.end, step});
    all.back().end = each.end;
  }
  if (all.size() > 2) throw std::runtime_error("a hole in the memory of the lanes");
  return all;
}

/// Probes all of it, from each of two workers. An empty text: all is as it should be.
std::string probe_pool(std::uint64_t step) {
  const lane_memory memory;
  lanes = &memory;
  process_pool pool{2};
  const std::vector<span_of_pages> all = all_areas(memory, step);
  if (const shared_range area = memory.arguments(); !area.writable()) return "broken: no memory for arguments";
  const auto before = pool.stats();
  std::string text;
  std::array<bool, 2> tried_from{};
  for (int i = 0; i != 20 && !(tried_from[0] && tried_from[1]); ++i) {
    std::vector<future<found>> both;
    for (int worker = 0; worker != 2; ++worker) {
      both.push_back(pool.apply_async(probe, all));
    }
    for (auto& each : both) {
      const found got = each.get();
      if (!std::exchange(tried_from[got.worker], true)) {
        text += "from worker " + std::to_string(got.worker) + ": " + std::to_string(got.pages) + " pages, " +
                std::to_string(got.readable) + " readable, " + std::to_string(got.writable) + " writable\n";
      }
      if (got.wrong != 0) return "broken: " + std::to_string(got.wrong) + " pages can be touched that should not be";
      if (got.writable == 0 || got.readable <= got.writable) return "broken: the probe finds nothing";
    }
  }
  if (!(tried_from[0] && tried_from[1])) return "broken: not tried from both workers";
  const auto after = pool.stats();
  for (std::size_t i = 0; i != 2; ++i) {
    if (after.workers[i].pid != before.workers[i].pid) return "broken: a worker has died of a probe";
  }
  if (pool.apply([](int x) { return 2 * x; }, 4) != 8) return "broken: wrong results afterwards";
  return text;
}

enum class touch { write, run };

void touch_at(std::uint64_t at, touch how) {
  switch (how) {
    case touch::write:
      return write_at(at, 0xff);
    case touch::run:
      return run_at(at);
  }
}

}  // namespace

TEST_CASE("no page can be touched but a worker's own lane, and arguments read", "[process_pool][isolation]") {
  resources_unchanged guard;
#if defined(PROCPOOL_TEST_ASAN)
  // AddressSanitizer takes the address space that small lanes would have to be forced by.
  const std::string said = in_child([] { return probe_pool((std::uint64_t{1} << 25) - page); });
#else
  const std::string said = in_child([] {
    const rlimit little{rlim_t{1} << 28, rlim_t{1} << 28};  // lanes whose arenas are small: every page of them
    if (::setrlimit(RLIMIT_AS, &little) != 0) return std::string("broken: setrlimit");
    return probe_pool(page);
  });
#endif
  std::cout << said;
  CHECK(said.find("from worker 0") != std::string::npos);
  CHECK(said.find("from worker 1") != std::string::npos);
  CHECK(said.find("broken") == std::string::npos);
  CHECK(said.find("ended with") == std::string::npos);
}

TEST_CASE("pages far inside of large memory cannot be touched either", "[process_pool][isolation]") {
  resources_unchanged guard;
  const std::string said = in_child([] { return probe_pool((std::uint64_t{1} << 24) + page); });
  CHECK(said.find("broken") == std::string::npos);
  CHECK(said.find("from worker 1") != std::string::npos);
}

namespace {

/// Whether this process has memory of its own there, that nobody else sees (proc(5), maps).
bool is_private(std::uint64_t where) {
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    char rights[5] = {};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, rights) != 3) continue;
    if (begin <= where && where < end) return rights[3] == 'p';
  }
  return false;
}

}  // namespace

TEST_CASE("a write outside of its replies kills the worker that writes, and changes nothing",
          "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  lanes = &memory;
  process_pool pool{2};
  // In the parent: guard, requests, guard, replies, guard, ...
  const auto ranges = memory.ranges();
  std::vector<std::uint64_t> addresses;
  for (const shared_range& each : ranges) {
    const bool half = each.readable();
    addresses.push_back(each.begin);
    addresses.push_back(each.end - 1);
    if (!half) continue;
    for (const std::uint64_t offset : {std::uint64_t{64}, page, 16 * page, each.size() / 2})
      addresses.push_back(each.begin + offset);
  }
  int deaths = 0;
  int own = 0;
  for (const touch how : {touch::write, touch::run}) {
    for (const std::uint64_t at : addresses) {
      CAPTURE(std::hex, at, static_cast<int>(how));
      REQUIRE(eventually([&] {
        return std::ranges::all_of(pool.stats().workers, [](const worker_stats& each) { return each.alive; });
      }));
      const auto before = pool.stats();
      // In the arenas, what is there does not change by ordinary work: no argument or result is large.
      const bool quiet = std::ranges::any_of(ranges, [at](const shared_range& each) {
        return each.readable() && each.begin + sizeof(detail::request_half) + sizeof(detail::reply_half) < at &&
               at < each.end;
      });
      const int byte = quiet ? read_at(at) : 0;
      pid_t died = 0;
      try {
        // Its own replies it may write, and they are not this test's business.
        const bool wrote = pool.apply(
            [](std::uint64_t where, touch what) {
              const shared_range mine = lanes->replies();
              if (what == touch::write && mine.begin <= where && where < mine.end) return false;
              if (what == touch::write && is_private(where)) return false;  // has been mapped there since
              touch_at(where, what);
              return true;
            },
            at, how);
        CHECK_FALSE(wrote);
        ++own;
        continue;
      } catch (const worker_crashed& crash) {
        CHECK((crash.signal() == SIGSEGV || crash.signal() == SIGBUS || crash.signal() == SIGABRT));
        died = crash.pid();
        ++deaths;
      }
      int same = 0;
      for (std::size_t i = 0; i != 2; ++i) {
        if (before.workers[i].pid == died) continue;
        ++same;
        CHECK(pool.stats().workers[i].pid == before.workers[i].pid);
      }
      CHECK(same == 1);
      CHECK(pool.apply([](int x) { return 2 * x; }, 4) == 8);
      if (quiet) CHECK(read_at(at) == byte);
    }
  }
  std::cout << "wild writes: " << addresses.size() << " addresses, " << deaths << " deaths of the one that touched, "
            << own << " in its own replies\n";
  CHECK(deaths > static_cast<int>(addresses.size()));
}
