// SPDX-License-Identifier: BSL-1.0
// Workers whose half of the lane is overwritten by a thread of their own while the parent reads it: with noise, with
// words that could be true, with single bits turned. Whatever it is, the parent goes on, every future ends, no task
// gets what belongs to another, and the other workers notice nothing.
#include <fcntl.h>
#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <iostream>
#include <iterator>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/eventually.hpp"
#include "support/lane_memory.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;
using detail::reply_half;
using detail::reply_header;
using detail::request_half;

namespace {

#if defined(PROCPOOL_NIGHTLY)
constexpr std::uint64_t wanted_reads = 20'000'000;
constexpr int rounds = 200;
#else
constexpr std::uint64_t wanted_reads = 1'000'000;
constexpr int rounds = 10;
#endif

/// Small, fast, and the same everywhere.
class noise {
 public:
  explicit noise(std::uint64_t seed) : state_(seed * 2 + 1) {}
  std::uint64_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  std::uint64_t below(std::uint64_t bound) { return (*this)() % bound; }

 private:
  std::uint64_t state_;
};

/// The worker's side of a lane, as a thread sees it that has no business there.
class scribbler {
 public:
  enum manner { random_words, plausible_words, turned_bits, zeroes, manners };

  scribbler(const void* requests, void* replies, std::uint64_t seed)
      : requests_(*static_cast<const request_half*>(requests)),
        replies_(static_cast<std::byte*>(replies)),
        random_(seed) {}

  /// Some changes. Nothing tells a sanitizer that the words are shared: they are not meant to be.
  __attribute__((no_sanitize("address", "undefined", "thread"))) void scribble(manner how) {
    switch (how) {
      case random_words:
        return write(random_.below(extent / 8) * 8, random_());
      case plausible_words:
        return write_plausible();
      case turned_bits: {
        const std::size_t at =
            random_.below(2) == 0 ? random_.below(offsetof(reply_half, ring) / 8) * 8 : header() + 8 * random_.below(6);
        return write(at, read(at) ^ std::uint64_t{1} << random_.below(64));
      }
      default:
        for (std::size_t at = 0; at != offsetof(reply_half, ring) + 4096; at += 8) write(at, 0);
    }
  }

  /// Replies that are well-formed, for what is posted: so that the parent gets as far as to decode them.
  void answer() {
    const std::uint64_t limit = requests_.limit.load();
    std::uint64_t at = requests_.taken_bytes.load();
    for (std::uint64_t number = requests_.taken.load() + 1; number <= limit && number < limit + 64; ++number) {
      const std::uint64_t offset = at % detail::ring_bytes;
      const bool large = random_.below(3) == 0;
      reply_header is{number, random_.below(600), 0, static_cast<std::uint32_t>(1 + random_.below(3)), 0};
      if (large) is.arena = detail::region_layout::reply_arena + 64 * random_.below(64);
      const std::size_t room = sizeof(is) + (large ? 0 : detail::round_up(is.size, 8));
      if (offset + room > detail::ring_bytes) {
        is = {reply_header::wrap, 0, 0, 0, 0};
        copy(detail::ring_bytes - offset >= sizeof(is) ? offset : 0, is);
        at += detail::ring_bytes - offset;
        --number;
        continue;
      }
      copy(offset, is);
      at += room;
    }
    write(offsetof(reply_half, published), limit);
    write(offsetof(reply_half, claimed), limit);
  }

 private:
  static constexpr std::size_t extent = 128 * 1024;

  std::size_t header() const {
    return offsetof(reply_half, ring) +
           requests_.taken_bytes.load(std::memory_order_relaxed) % detail::ring_bytes / 8 * 8;
  }

  void write_plausible() {
    constexpr std::size_t words[] = {offsetof(reply_half, published), offsetof(reply_half, claimed),
                                     offsetof(reply_half, asleep),    offsetof(reply_half, state),
                                     offsetof(reply_half, busy_ns),   offsetof(reply_half, timed),
                                     offsetof(reply_half, busy_since)};
    const std::uint64_t near = requests_.taken.load(std::memory_order_relaxed) + random_.below(8);
    switch (random_.below(4)) {
      case 0:
        return write(words[random_.below(std::size(words))], near - 2);
      case 1:
        return write(words[random_.below(std::size(words))], random_.below(6));
      case 2:
        return copy(header() - offsetof(reply_half, ring),
                    reply_header{near, random_.below(100),
                                 random_.below(2) * (detail::region_layout::reply_arena + 64 * random_.below(1000)),
                                 static_cast<std::uint32_t>(random_.below(7)), 0});
      default:
        return write(detail::region_layout::reply_arena + 8 * random_.below(8192), random_.below(100));
    }
  }

  void copy(std::size_t in_ring, const reply_header& header) {
    std::uint64_t words[sizeof(header) / 8];
    std::memcpy(words, &header, sizeof(header));
    for (std::size_t i = 0; i != std::size(words); ++i)
      write(offsetof(reply_half, ring) + in_ring % (detail::ring_bytes - 32) / 8 * 8 + 8 * i, words[i]);
  }
  __attribute__((no_sanitize("address", "undefined", "thread"))) void write(std::size_t at, std::uint64_t value) {
    *reinterpret_cast<volatile std::uint64_t*>(replies_ + at) = value;
  }
  __attribute__((no_sanitize("address", "undefined", "thread"))) std::uint64_t read(std::size_t at) const {
    return *reinterpret_cast<const volatile std::uint64_t*>(replies_ + at);
  }

  const request_half& requests_;
  std::byte* replies_;
  noise random_;
};

/// What each task of a test gives, and no other.
struct ticket {
  std::uint64_t id = 0;
  std::uint64_t check = 0;
  std::uint64_t worker = 0;

  static std::uint64_t check_of(std::uint64_t id) { return (id + 1) * 0x9e3779b97f4a7c15U; }
  bool whole() const { return check == check_of(id); }
};
ticket serve(std::uint64_t id) { return {id, ticket::check_of(id), this_worker::index()}; }
std::vector<ticket> serve_many(std::uint64_t id) { return std::vector<ticket>(3000, serve(id)); }  // by the arena

/// A task that has been set on its worker: from then on, and until the worker dies, a thread overwrites its half. Once for
/// each seed: what is overwritten may say that this task has not started, and then it runs again elsewhere.
std::size_t set_on(const lane_memory& memory, shared_words::word& last_seed, scribbler::manner how, int seed) {
  if (last_seed.exchange(seed) == seed) return this_worker::index();
  const shared_range requests = memory.requests();
  const shared_range replies = memory.replies();
  std::thread([=] {
    const auto noise_of = static_cast<std::uint64_t>(seed);
    scribbler hand(reinterpret_cast<const void*>(requests.begin), reinterpret_cast<void*>(replies.begin), noise_of);
    noise pause(noise_of);
    for (;;) {
      hand.scribble(how);
      for (std::uint64_t i = pause.below(2000); i != 0; --i) std::atomic_signal_fence(std::memory_order_seq_cst);
    }
  }).detach();
  return this_worker::index();
}

template <class Result>
void must_end(const future<Result>& each) {
  REQUIRE(each.wait_for(20s) == std::future_status::ready);
}

// For tasks:
const lane_memory* memory_of_pool = nullptr;
shared_words::word* last_seed_of_pool = nullptr;

}  // namespace

TEST_CASE("a lane that is overwritten while the parent reads it", "[lane][isolation]") {
  // Both halves in one process each: the child writes its reply half from two threads for ever, the parent posts,
  // reads, decodes, and begins anew whenever it sees that it is lied to.
  detail::shared_region region(2);
  auto* const foreign = reinterpret_cast<std::byte*>(&region.replies(1));
  constexpr std::size_t foreign_bytes = sizeof(reply_half);
  std::memset(static_cast<void*>(foreign), 0x5a, foreign_bytes);
  std::memset(reinterpret_cast<std::byte*>(&region.replies(0)) + detail::region_layout::reply_arena, 1, 64 * 1024);
  child_process worker([&]() -> std::string {
    const auto write_for_ever = [&](std::uint64_t seed) {
      scribbler hand(&region.requests(0), &region.replies(0), seed);
      noise choice(seed);
      for (;;) {
        hand.answer();
        for (std::uint64_t i = choice.below(4); i != 0; --i) hand.scribble(scribbler::plausible_words);
        if (choice.below(64) == 0) hand.scribble(static_cast<scribbler::manner>(choice.below(scribbler::manners)));
      }
    };
    std::thread other(write_for_ever, 1);
    write_for_ever(2);
    return "";
  });

  class reading_job final : public detail::parted_job {
   public:
    reading_job() : parted_job(nullptr, "read", 0) {}
    void retain() noexcept override {}
    void release() noexcept override {}
    bool settle(std::size_t element, detail::reply& how) noexcept override {
      switch (element % 4) {  // in place, and from private copies
        case 0:
          return detail::read_reply<std::vector<std::uint64_t>>(*this, element, how).has_value();
        case 1:
          return detail::read_reply<std::vector<std::string>>(*this, element, how).has_value();
        case 2:
          return detail::read_reply<std::vector<std::vector<bool>>>(*this, element, how).has_value();
        default:
          return detail::read_reply<ticket>(*this, element, how).has_value();
      }
    }
  };
  reading_job job;
  detail::lane_port port(region, 0);
  std::uint64_t reads = 0;  // looks at control words, and replies
  std::uint64_t replies = 0;
  std::uint64_t values = 0;
  std::uint64_t refused = 0;
  std::uint64_t generation = 0;
  port.reset(generation, detail::registered_fd(std::move(detail::make_message_sockets().first)));
  while (reads < wanted_reads || replies < wanted_reads / 100) {
    while (port.outstanding() < 40) {
      detail::inputs_ptr arguments(new detail::inputs);
      for (int i = 0; i != 10; ++i) arguments->end_element();
      detail::chunk what{detail::job_ptr(&job), arguments, 0, 0, 10};
      if (port.post(what) != detail::post_result::posted) break;
    }
    port.wake();
    const std::uint64_t settled = port.settled();
    const std::uint64_t claimed = port.claimed();
    if (claimed < settled || claimed > port.last()) FAIL("claimed() outside of what is posted");
    const auto running = port.running();
    if (running && (*running <= settled || *running > port.last())) FAIL("what runs is not posted");
    static_cast<void>(port.started(settled + 1));
    static_cast<void>(port.initialized() || port.left());
    if (port.failure().size() > detail::failure_text) FAIL("a long failure");
    if (port.busy(std::chrono::steady_clock::now()) < 0ns) FAIL("busy for less than no time");
    std::vector<detail::chunk> back;
    if (reads % 7 == 0) port.take_back(settled + 15, back);
    auto published = port.published(settled, port.last());
    reads += 9;
    for (int looks = 0; published == settled && looks != 5000; ++looks, ++reads) {
      if (looks % 100 == 99) std::this_thread::yield();
      published = port.published(settled, port.last());
    }
    bool believed = published.has_value();
    std::uint64_t number = settled;
    for (; believed && number != *published; ++number) {
      const auto answer = port.next_reply(number + 1);
      ++reads;
      believed = answer.has_value();
      if (!believed) break;
      ++replies;
      detail::byte_reader bytes(answer->data, answer->size, &port.inbox());
      detail::reply how{answer->kind, &bytes, answer->stable, nullptr};
      if (job.settle(static_cast<std::size_t>(number), how)) ++values;
    }
    std::vector<detail::chunk> through;
    port.settle(number, through);
    if (believed) {
      port.taken(number);
    } else {  // as after the death of the worker, though this one goes on
      ++refused;
      port.take_all(back, through);
      port.reset(++generation, detail::registered_fd(std::move(detail::make_message_sockets().first)));
    }
  }
  std::vector<detail::chunk> left;
  port.take_all(left, left);
  std::cout << "scribbled lane: " << reads << " reads of the parent, " << replies << " replies decoded, " << values
            << " of them to values, " << refused << " times not believed\n";
  CHECK(values > 0);
  CHECK(refused > 0);
  CHECK(std::all_of(foreign, foreign + foreign_bytes, [](std::byte each) { return each == std::byte{0x5a}; }));
  ::kill(worker.pid(), SIGKILL);
}

TEST_CASE("a thread that overwrites its worker's lane harms that worker's tasks only",
          "[process_pool][isolation][crash]") {
  const auto how =
      GENERATE(scribbler::random_words, scribbler::plausible_words, scribbler::turned_bits, scribbler::zeroes);
  CAPTURE(how);
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  const shared_words last_seed(1);
  last_seed_of_pool = last_seed.in_task();
  process_pool pool{2};
  std::uint64_t id = 1;
  std::uint64_t values = 0, errors = 0, garbage = 0;
  for (int round = 0; round != rounds; ++round) {
    CAPTURE(round);
    const auto before = pool.stats();
    auto setting =
        pool.apply_async([how](int seed) { return set_on(*memory_of_pool, *last_seed_of_pool, how, seed); }, round + 1);
    std::vector<std::pair<std::uint64_t, future<ticket>>> small;
    std::vector<std::pair<std::uint64_t, future<std::vector<ticket>>>> large;
    for (int i = 0; i != 60; ++i) {
      small.emplace_back(id, pool.apply_async(serve, id));
      ++id;
      if (i % 6 != 0) continue;
      large.emplace_back(id, pool.apply_async(serve_many, id));
      ++id;
    }
    // In the time that its worker lives, the thread may overwrite the task's own reply.
    must_end(setting);
    std::optional<pid_t> hit;
    const auto note = [&](const worker_crashed& crash) {
      if (!hit) hit = crash.pid();
      CHECK(crash.pid() == *hit);  // one worker alone
    };
    const auto judge = [&](std::uint64_t own, const ticket& got) {
      if (got.whole()) REQUIRE(got.id == own);
      ++(got.whole() ? values : garbage);
    };
    for (auto& [own, each] : small) {
      must_end(each);
      try {
        judge(own, each.get());
      } catch (const worker_crashed& crash) {
        note(crash);
        ++errors;
      } catch (const std::exception&) {
        ++errors;
      }
    }
    for (auto& [own, each] : large) {
      must_end(each);
      try {
        const auto all = each.get();
        for (const ticket& got : all) {
          if (got.whole()) REQUIRE(got.id == own);
        }
        judge(own, all.empty() ? ticket() : all.back());
      } catch (const worker_crashed& crash) {
        note(crash);
        ++errors;
      } catch (const std::exception&) {
        ++errors;
      }
    }
    // The scribbler's worker, if it is there still: which one it was it may not have been able to say.
    const auto after = pool.stats();
    int same = 0;
    for (std::size_t i = 0; i != 2; ++i) {
      if (after.workers[i].generation == before.workers[i].generation) ++same;
    }
    CHECK(same >= 1);
    std::vector<pid_t> killed;
    for (const worker_stats& each : after.workers) {
      if (each.pid == 0) continue;
      ::kill(each.pid, SIGKILL);
      killed.push_back(each.pid);
    }
    REQUIRE(eventually([&] {
      const auto now = pool.stats();
      return std::all_of(now.workers.begin(), now.workers.end(), [&](const worker_stats& each) {
        return each.alive && each.generation > before.workers[each.index].generation &&
               std::find(killed.begin(), killed.end(), each.pid) == killed.end();
      });
    }));
  }
  std::cout << "scribbling manner " << static_cast<int>(how) << ": " << values << " values, " << garbage
            << " results that are garbage, " << errors << " errors\n";
  CHECK(values > 0);
  CHECK(pool.map([](int x) { return x; }, std::views::iota(0, 1000)).size() == 1000);
}

TEST_CASE("a worker that hangs behind zeroes can be terminated", "[process_pool][isolation][crash]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{2};
  for (int i = 0; i != 20; ++i) CHECK(pool.apply(serve, 1).whole());
  auto hanging = pool.apply_async([] {
    const shared_range mine = memory_of_pool->replies();
    for (std::uint64_t at = mine.begin; at != mine.begin + sizeof(reply_half); at += 8)
      *reinterpret_cast<volatile std::uint64_t*>(at) = 0;
    for (;;) ::pause();
    return 1;
  });
  // A lane that has served before cannot go back to zero: this is seen, and the task fails.
  const bool seen = hanging.wait_for(2s) == std::future_status::ready;
  pool.terminate();
  must_end(hanging);
  CHECK_THROWS_AS(hanging.get(), error);
  static_cast<void>(seen);
}

TEST_CASE("words that were overwritten once are said again", "[process_pool][isolation]") {
  resources_unchanged guard;
  const shared_words overwritten(1);
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool{1};
  const auto overwrite = [told = overwritten.in_task()](std::size_t word, std::uint32_t value,
                                                        std::uint32_t when_asleep) {
    const shared_range mine = memory_of_pool->replies();
    std::thread([=] {
      auto& half = *reinterpret_cast<reply_half*>(mine.begin);
      while (static_cast<std::uint32_t>(half.asleep.load()) != when_asleep) ::usleep(100);
      *reinterpret_cast<volatile std::uint32_t*>(mine.begin + word) = value;
      ++*told;
    }).detach();
    return true;
  };
  SECTION("that it sleeps") {
    for (int i = 0; i != 5; ++i) {
      CHECK(pool.apply(overwrite, offsetof(reply_half, asleep), 0U, 1U));
      REQUIRE(eventually([&] { return overwritten[0] == i + 1; }));
      auto next = pool.apply_async(serve, 7);
      must_end(next);
      CHECK(next.get().id == 7);
    }
  }
  SECTION("what it has published") {
    // The word goes back as soon as the reply is there; the parent may have been faster.
    auto next = pool.apply_async([parent = ::getpid()] {
      static std::atomic<bool> there{false};
      const shared_range mine = memory_of_pool->replies();
      std::thread([mine] {
        auto& half = *reinterpret_cast<reply_half*>(mine.begin);
        there = true;
        while (half.published.load() == 0) {
        }
        half.published.store(0);
        half.claimed.store(0);
      }).detach();
      eventually([&] { return there.load(); });
      await_threads_asleep(parent);
      return 9;
    });
    must_end(next);
    CHECK(next.get() == 9);
  }
  // If the parent was faster, the word goes back behind what has been settled, and that is malformed.
  CHECK(eventually([&] {
    try {
      return pool.apply(serve, 8).id == 8;
    } catch (const worker_crashed&) {
      return false;
    }
  }));
}

TEST_CASE("a thread of the initializer overwrites that its worker is ready", "[process_pool][isolation]") {
  resources_unchanged guard;
  const lane_memory memory;
  memory_of_pool = &memory;
  process_pool pool(1, [] {
    static std::atomic<bool> there{false};
    const shared_range mine = memory_of_pool->replies();
    std::thread([mine] {
      auto& half = *reinterpret_cast<reply_half*>(mine.begin);
      there = true;
      while (half.state.load() != detail::worker_state::ready) {
      }
      half.state.store(detail::worker_state::starting);
    }).detach();
    eventually([&] { return there.load(); });
  });
  CHECK(pool.apply(serve, 8).id == 8);
}

TEST_CASE("a worker that takes the doorbell for itself keeps nobody waiting", "[process_pool][hostile]") {
  resources_unchanged guard;
  process_pool pool{2};
  // Every eventfd that a worker has is the doorbell: made blocking, and emptied as soon as it rings.
  const auto spoil = [] {
    for (int fd = 3; fd != 1024; ++fd) {
      char target[64] = {};
      if (::readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof(target) - 1) <= 0) continue;
      if (std::string(target).find("eventfd") == std::string::npos) continue;
      ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
      std::thread([fd] {
        for (std::uint64_t count; ::read(fd, &count, sizeof(count)) > 0;) {
        }
      }).detach();
    }
  };
  pool.broadcast(spoil);
  for (int i = 0; i != 30; ++i) {
    auto slow = pool.apply_async(
        [parent = ::getpid()](int x) {
          await_threads_asleep(parent);
          return x;
        },
        i);
    CHECK(slow.get(std::chrono::seconds(20)) == i);
  }
  CHECK_THROWS_AS(pool.apply([] { ::raise(SIGKILL); }), worker_crashed);
  CHECK(pool.apply([](int x) { return x; }, 7) == 7);
}

TEST_CASE("a worker that says that it has started nothing, and hangs, is replaced", "[process_pool][hostile]") {
  resources_unchanged guard;
  process_pool pool{1};
  auto hung = pool.apply_async([] {
    ::raise(SIGSTOP);
    for (;;) ::pause();
  });
  REQUIRE(eventually([&] { return hung.running(); }));
  CHECK(hung.cancel());
  REQUIRE(eventually([&] { return pool.stats().workers_crashed == 1; }));
  // An idle one that stands still: what it was given runs in its replacement.
  const pid_t worker = pool.apply([] { return ::getpid(); });
  REQUIRE(await_sleep(worker));
  REQUIRE(::kill(worker, SIGSTOP) == 0);
  CHECK(pool.apply_async([] { return ::getpid(); }).get(std::chrono::seconds(30)) != worker);
  CHECK(pool.stats().tasks_failed == 1);
}
