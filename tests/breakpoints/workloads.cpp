// SPDX-License-Identifier: BSL-1.0
#include "workloads.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

#include <procpool/procpool.hpp>

#include "round.hpp"

namespace breakpoints {
namespace {

using procpool::pool_options;
using process_pool = procpool::process_pool<>;

void begin(board* shared, int id) { ++shared->ran[id]; }

// ---- what is done with a pool ---------------------------------------------------------------------------------------

void small(process_pool& pool, round& now) {
  std::vector<std::pair<int, std::optional<procpool::future<int>>>> running;
  for (int i = 0; i != 8; ++i) {
    const int id = now.task();
    running.emplace_back(id, now.submit(id, [&] {
      return pool.apply_async(
          [shared = &now.shared()](int number, int x) {
            begin(shared, number);
            return x * x;
          },
          id, i);
    }));
  }
  for (int i = 0; i != 8; ++i) {
    auto& [id, result] = running[static_cast<std::size_t>(i)];
    if (result) now.judge(id, [&] { return result->get(patience); }, i * i);
  }
}

void chunks(process_pool& pool, round& now) {
  std::vector<int> ids(16);
  for (int& id : ids) id = now.task();
  const auto triple = [shared = &now.shared()](int id) {
    begin(shared, id);
    return 3 * id;
  };
  std::vector<procpool::outcome<int>> outcomes;
  const bool done = now.attempt("try_map", [&] { outcomes = pool.try_map(triple, ids, 4); });
  for (std::size_t i = 0; i != ids.size(); ++i) {
    if (done) {
      now.judge_outcome(ids[i], outcomes[i], 3 * ids[i]);
    } else {
      now.ended(ids[i], round::end::broken);
    }
  }
}

/// Elements behind a failed one that have not started are skipped.
void failing_map(process_pool& pool, round& now) {
  std::vector<int> ids(12);
  for (int& id : ids) id = now.task(round::kind::spare);
  const auto fail_at_third = [shared = &now.shared(), third = ids[2]](int id) {
    begin(shared, id);
    if (id == third) throw std::out_of_range("third");
    return id;
  };
  now.attempt("map", [&] {
    try {
      auto result = pool.map_async(fail_at_third, ids, 6);
      result.get(patience);
      now.complain("map has swallowed an exception");
    } catch (const std::out_of_range& failure) {
      if (failure.what() != std::string("third")) now.complain("map threw " + std::string(failure.what()));
    }
  });
}

/// Enough to go round a ring of replies, and views in the arguments.
void strings(process_pool& pool, round& now) {
  std::vector<std::pair<int, std::optional<procpool::future<std::string>>>> running;
  for (int i = 0; i != 24; ++i) {
    const int id = now.task();
    const std::string text(static_cast<std::size_t>(i) * 300, static_cast<char>('a' + i));
    running.emplace_back(id, now.submit(id, [&] {
      return pool.apply_async(
          [shared = &now.shared()](int number, std::string_view view) {
            begin(shared, number);
            return std::string(view) + std::string(30'000 - view.size(), '.');
          },
          id, std::string_view(text));
    }));
  }
  for (int i = 0; i != 24; ++i) {
    auto& [id, result] = running[static_cast<std::size_t>(i)];
    const std::string text(static_cast<std::size_t>(i) * 300, static_cast<char>('a' + i));
    if (result) now.judge(id, [&] { return result->get(patience); }, text + std::string(30'000 - text.size(), '.'));
  }
}

/// Through the arenas.
void large(process_pool& pool, round& now) {
  const auto filled = [](int i) {
    std::vector<int> numbers(25'000);
    std::iota(numbers.begin(), numbers.end(), i);
    return numbers;
  };
  std::vector<std::pair<int, std::optional<procpool::future<std::vector<int>>>>> running;
  for (int i = 0; i != 4; ++i) {
    const int id = now.task();
    running.emplace_back(id, now.submit(id, [&] {
      return pool.apply_async(
          [shared = &now.shared()](int number, std::vector<int> numbers) {
            begin(shared, number);
            std::reverse(numbers.begin(), numbers.end());
            return numbers;
          },
          id, filled(i));
    }));
  }
  for (int i = 0; i != 4; ++i) {
    auto& [id, result] = running[static_cast<std::size_t>(i)];
    auto expected = filled(i);
    std::reverse(expected.begin(), expected.end());
    if (result) now.judge(id, [&] { return result->get(patience); }, expected);
  }
}

struct refusal : std::domain_error {
  refusal() : std::domain_error("") {}
  explicit refusal(int number) : std::domain_error("refused " + std::to_string(number)), code(number) {}
  const char* what() const noexcept override { return "refused"; }
  int code = 0;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(code);
  }
};

void exceptions(process_pool& pool, round& now) {
  std::vector<std::pair<int, std::optional<procpool::future<int>>>> running;
  for (int i = 0; i != 4; ++i) {
    const int id = now.task();
    running.emplace_back(id, now.submit(id, [&] {
      return pool.apply_async(
          [shared = &now.shared()](int number, int which) {
            begin(shared, number);
            if (which == 0) throw std::out_of_range("zero");
            if (which == 1) throw refusal(number);
            if (which == 2) throw 2;
            try {
              throw std::out_of_range("inner");
            } catch (...) {
              std::throw_with_nested(std::invalid_argument("outer"));
            }
            return 0;
          },
          id, i);
    }));
  }
  for (int i = 0; i != 4; ++i) {
    auto& [id, result] = running[static_cast<std::size_t>(i)];
    if (!result) continue;
    now.judge(id, [&] {
      try {
        result->get(patience);
      } catch (const refusal& failure) {
        return i == 1 && failure.code == id;
      } catch (const std::out_of_range& failure) {
        return i == 0 && failure.what() == std::string("zero");
      } catch (const procpool::remote_error& failure) {
        return i == 2 && failure.type_name() == "int";
      } catch (const std::invalid_argument& failure) {
        try {
          std::rethrow_if_nested(failure);
        } catch (const std::out_of_range& inner) {
          return i == 3 && inner.what() == std::string("inner");
        }
      }
      return false;
    });
  }
}

void lazy(process_pool& pool, round& now) {
  std::vector<int> ids(8);
  for (int& id : ids) id = now.task();
  const auto twice = [shared = &now.shared()](int id) {
    begin(shared, id);
    return 2 * id;
  };
  std::size_t at = 0;
  const bool made = now.attempt("imap", [&] {
    auto results = pool.imap(twice, ids, 2);
    for (; at != ids.size(); ++at) {
      now.judge(ids[at], [&] { return results.next(patience) == std::optional<int>(2 * ids[at]); });
    }
    if (results.next(patience)) now.complain("imap has more results than inputs");
  });
  if (!made) {
    for (; at != ids.size(); ++at) now.ended(ids[at], round::end::broken);
  }
}

/// Each task is given more arrays than a worker keeps, all of them new, and all are given up in the end: every round comes
/// to the same places, whatever the worker had from those before.
void arrays(process_pool& pool, round& now) {
  using array = procpool::shared_array<int>;
  constexpr int given_to_each = 20;
  std::vector<std::pair<int, std::optional<procpool::future<array>>>> running;
  for (int i = 0; i != 4; ++i) {
    const int id = now.task();
    running.emplace_back(id, now.submit(id, [&] {
      std::vector<array> numbers;
      for (int k = 0; k != given_to_each; ++k) {
        numbers.push_back(procpool::make_shared_array<int>(100));
        std::fill(numbers.back().begin(), numbers.back().end(), i);
      }
      return pool.apply_async(
          [shared = &now.shared()](int number, std::vector<array> given) {
            begin(shared, number);
            int sum = 0;
            for (const array& each : given) sum = std::accumulate(each.begin(), each.end(), sum);
            auto sums = procpool::make_shared_array<int>(10);
            std::fill(sums.begin(), sums.end(), sum);
            return sums;
          },
          id, numbers);
    }));
  }
  for (int i = 0; i != 4; ++i) {
    auto& [id, result] = running[static_cast<std::size_t>(i)];
    if (!result) continue;
    now.judge(id, [&] {
      const auto sums = result->get(patience);
      return sums.size() == 10 &&
             std::all_of(sums.begin(), sums.end(), [&](int sum) { return sum == given_to_each * 100 * i; });
    });
  }
}

/// The first task ends when the others have begun: what waits behind it is taken back, and runs elsewhere.
void uneven(process_pool& pool, round& now) {
  std::vector<int> ids(12);
  for (int& id : ids) id = now.task();
  const auto wait_for_others = [shared = &now.shared(), first = ids.front(), count = ids.size()](int id) {
    begin(shared, id);
    const std::int64_t until = now_ns() + 20'000'000;  // some may never begin, where something is killed
    const auto begun = [&] {
      const auto* ran = shared->ran + first;
      return std::all_of(ran, ran + count, [](const auto& each) { return each.load() != 0; });
    };
    while (id == first && !begun() && now_ns() < until) std::this_thread::yield();
    return -id;
  };
  std::vector<procpool::outcome<int>> outcomes;
  const bool done = now.attempt("try_map", [&] { outcomes = pool.try_map(wait_for_others, ids, 2); });
  for (std::size_t i = 0; i != ids.size(); ++i) {
    if (done) {
      now.judge_outcome(ids[i], outcomes[i], -ids[i]);
    } else {
      now.ended(ids[i], round::end::broken);
    }
  }
}

/// The pool kills the worker: of a task that takes too long, and of one that is cancelled while it runs.
void limits(process_pool& pool, round& now) {
  const auto never_return = [shared = &now.shared()](int id) {
    begin(shared, id);
    for (;;) ::pause();
    return 0;
  };
  const int slow = now.task(round::kind::endless);
  auto timed = now.submit(slow, [&] { return pool.with({.timeout = 2ms}).apply_async(never_return, slow); });
  const int unwanted = now.task(round::kind::endless);
  auto cancelled = now.submit(unwanted, [&] { return pool.apply_async(never_return, unwanted); });
  if (cancelled) {
    const std::int64_t until = now_ns() + 20'000'000;  // it may never begin, where something is killed
    while (now.shared().ran[unwanted] == 0 && now_ns() < until) std::this_thread::yield();
    cancelled->cancel();
    now.judge(unwanted, [&] { return cancelled->get(patience); }, 0);
  }
  if (timed) now.judge(slow, [&] { return timed->get(patience); }, 0);
}

void retries(process_pool& pool, round& now) {
  std::vector<std::pair<int, std::optional<procpool::future<int>>>> running;
  for (int i = 0; i != 8; ++i) {
    const int id = now.task(round::kind::retried);
    running.emplace_back(id, now.submit(id, [&] {
      return pool.with({.retries = 1})
          .apply_async(
              [shared = &now.shared()](int number) {
                begin(shared, number);
                return 5 * number;
              },
              id);
    }));
  }
  for (auto& [id, result] : running) {
    if (result) now.judge(id, [&, number = id] { return result->get(patience) == 5 * number; });
  }
}

/// Takes its time to be decoded in the application.
struct slow_text {
  std::string text{};
  template <class Archive>
  void save(Archive& archive) const {
    archive(text);
  }
  template <class Archive>
  void load(Archive& archive) {
    archive(text);
    const std::int64_t until = now_ns() + 150'000;
    while (now_ns() < until) {
    }
  }
  bool operator==(const slow_text&) const = default;
};

/// Workers are ahead of the application: they die with much published and not read, or wait for room in the ring.
void slow_reader(process_pool& pool, round& now) {
  std::vector<int> ids(32);
  for (int& id : ids) id = now.task();
  const auto text_of = [](int id) { return slow_text{std::string(24'000, static_cast<char>('0' + id))}; };
  const auto make = [shared = &now.shared(), text_of](int id) {
    begin(shared, id);
    return text_of(id);
  };
  std::vector<procpool::outcome<slow_text>> outcomes;
  const bool done = now.attempt("try_map", [&] { outcomes = pool.try_map(make, ids, 16); });
  for (std::size_t i = 0; i != ids.size(); ++i) {
    if (done) {
      now.judge_outcome(ids[i], outcomes[i], text_of(ids[i]));
    } else {
      now.ended(ids[i], round::end::broken);
    }
  }
}

void broadcast(process_pool& pool, round& now) {
  for (int i = 0; i != 2; ++i) {
    const int first = now.task(round::kind::spare);
    for (int worker = 1; worker != pool_size; ++worker) now.task(round::kind::spare);
    const bool done = now.attempt("broadcast", [&] {
      pool.broadcast([shared = &now.shared()](
                         int number) { begin(shared, number + static_cast<int>(procpool::this_worker::index())); },
                     first);
    });
    for (int worker = 0; done && worker != pool_size; ++worker) now.ended(first + worker, round::end::value);
  }
}

/// A worker dies, and is replaced.
void deaths(process_pool& pool, round& now) {
  const int id = now.task(round::kind::doomed);
  auto result = now.submit(id, [&] {
    return pool.apply_async(
        [shared = &now.shared()](int number) {
          begin(shared, number);
          ::raise(SIGKILL);
          return 0;
        },
        id);
  });
  if (result) now.judge(id, [&] { return result->get(patience); }, 0);
}

void some(process_pool& pool, round& now) {
  deaths(pool, now);
  small(pool, now);
}
void some_uneven(process_pool& pool, round& now) {
  some(pool, now);
  uneven(pool, now);
}

void everything_alone(process_pool& pool, round& now) {
  small(pool, now);
  chunks(pool, now);
  failing_map(pool, now);
  large(pool, now);
  exceptions(pool, now);
  lazy(pool, now);
  arrays(pool, now);
  deaths(pool, now);
  uneven(pool, now);
  limits(pool, now);
  retries(pool, now);
}
void everything(process_pool& pool, round& now) {
  everything_alone(pool, now);
  broadcast(pool, now);  // waits for busy workers
}

using activity = void (*)(process_pool&, round&);

// ---- workloads ------------------------------------------------------------------------------------------------------

pool_options options_for(board& shared) {
  return {.processes = pool_size,
          .initializer = [&shared] { shared.ready_at[procpool::this_worker::index()] = now_ns(); },
          .finalizer = [] {},
          .name = "b" + std::to_string(::getppid())};  // of the tracer, which can tell its own by it
}

/// One pool for all rounds. After each, both workers must be there, and work.
class live_pool : public workload {
 public:
  live_pool(board& shared, activity what, std::size_t max_tasks_per_child = 0)
      : shared_(shared), what_(what), pool_([&] {
          auto options = options_for(shared);
          options.max_tasks_per_child = max_tasks_per_child;
          return options;
        }()) {}

  void run() override {
    ++turn_;
    round now(shared_);
    what_(pool_, now);
    // What comes next works, whatever was killed.
    int asked = 0;
    while (!now.attempt("broadcast", [&] {
      pool_.broadcast([shared = &shared_, turn = turn_] { shared->present[procpool::this_worker::index()] = turn; });
    })) {
      if (++asked == 3) throw std::runtime_error("a broadcast has failed three times");
    }
    for (const auto& each : shared_.present) {
      if (each != turn_) now.complain("a broadcast has left a worker out");
    }
    small(pool_, now);
    fall_asleep(now);
    const auto all = pool_.stats();
    if (all.tasks_queued != 0 || all.tasks_running != 0 ||
        all.tasks_submitted != all.tasks_completed + all.tasks_failed)
      now.complain("the counts of tasks do not add up");
    if (const std::int64_t killed = shared_.killed_at; killed != 0) {
      for (const auto& ready : shared_.ready_at) shared_.back_ns = std::max(shared_.back_ns, ready - killed);
    }
    now.close();
  }

 private:
  /// Until every worker is there and has nothing to do.
  void fall_asleep(round& now) {
    const auto until = std::chrono::steady_clock::now() + patience;
    for (;;) {
      const auto all = pool_.stats();
      if (std::all_of(all.workers.begin(), all.workers.end(),
                      [](const auto& each) { return each.alive && asleep(each.pid); }))
        return;
      if (std::chrono::steady_clock::now() > until) return now.complain("a worker is not back");
      std::this_thread::sleep_for(50us);
    }
  }

  static bool asleep(pid_t pid) {
    char text[256] = {};
    const int file = ::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) return false;
    [[maybe_unused]] const ssize_t size = ::read(file, text, sizeof(text) - 1);
    ::close(file);
    const char* name_end = std::strrchr(text, ')');
    return name_end != nullptr && name_end[1] == ' ' && name_end[2] == 'S';
  }

  board& shared_;
  activity what_;
  process_pool pool_;
  int turn_ = 0;
};

/// A new pool in each round, of which nothing may be left at its end.
class fresh_pool : public workload {
 public:
  fresh_pool(board& shared, activity what, bool terminated) : shared_(shared), what_(what), terminated_(terminated) {}

  void run() override {
    int ends[2];
    if (::pipe(ends) != 0) std::abort();  // inherited by all that the pool forks
    ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    round now(shared_);
    now.attempt("pool", [&] {
      process_pool pool(options_for(shared_));
      std::vector<std::pair<int, std::optional<procpool::future<int>>>> hanging;
      const auto hang = [&] {
        const int id = now.task();
        hanging.emplace_back(id, now.submit(id, [&] {
          return pool.apply_async(
              [shared = &shared_](int number) {
                begin(shared, number);
                for (;;) ::pause();
                return 0;
              },
              id);
        }));
      };
      if (terminated_) hang();
      what_(pool, now);
      if (terminated_) {
        for (int i = 0; i != 4; ++i) hang();  // one for the other worker; the rest waits
        pool.terminate();
      }
      for (auto& [id, result] : hanging) {
        if (result) now.judge(id, [&result = result] { return result->get(patience); }, 1);
      }
    });
    ::close(ends[1]);
    const std::int64_t since = now_ns();
    pollfd last{ends[0], POLLIN, 0};
    const bool gone = ::poll(&last, 1, 2000) == 1 && (last.revents & POLLIN) == 0;
    shared_.gone_ns = gone ? now_ns() - since : -1;
    if (!gone) now.complain("a process is left 2 s after the end of the pool");
    ::close(ends[0]);
    now.close();
  }

 private:
  board& shared_;
  activity what_;
  bool terminated_;
};

struct entry {
  const char* name;
  std::unique_ptr<workload> (*make)(board&);
};

template <activity What>
std::unique_ptr<workload> live(board& shared) {
  return std::make_unique<live_pool>(shared, What);
}
template <activity What, bool Terminated>
std::unique_ptr<workload> fresh(board& shared) {
  return std::make_unique<fresh_pool>(shared, What, Terminated);
}

constexpr entry entries[] = {
    {"small", live<small>},
    {"chunks", live<chunks>},
    {"failing_map", live<failing_map>},
    {"strings", live<strings>},
    {"large", live<large>},
    {"exceptions", live<exceptions>},
    {"lazy", live<lazy>},
    {"arrays", live<arrays>},
    {"broadcast", live<broadcast>},
    {"deaths", live<deaths>},
    {"retirement",
     [](board& shared) -> std::unique_ptr<workload> { return std::make_unique<live_pool>(shared, small, 3); }},
    {"uneven", live<uneven>},
    {"slow_reader", live<slow_reader>},
    {"limits", live<limits>},
    {"retries", live<retries>},
    {"life", fresh<small, false>},
    {"destroy", fresh<some_uneven, false>},
    {"terminate", fresh<some, true>},
    {"everything_destroy", fresh<everything, false>},
    {"everything_terminate", fresh<everything_alone, true>},
};

}  // namespace

std::vector<std::string> workload_names() {
  std::vector<std::string> names;
  for (const entry& each : entries) names.emplace_back(each.name);
  return names;
}

std::unique_ptr<workload> make_workload(const std::string& name, board& shared) {
  procpool::register_exception<refusal>();
  for (const entry& each : entries) {
    if (name == each.name) return each.make(shared);
  }
  throw std::invalid_argument("no workload " + name);
}

}  // namespace breakpoints
