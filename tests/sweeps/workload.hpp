// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <signal.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/procpool.hpp>

namespace sweeps {

/// What a run has come to: how many steps ended in what they should, how many in an error that the library documents,
/// and the first thing that must not be.
struct verdict {
  int good = 0;
  int refused = 0;
  char first_error[200] = "";  ///< the first documented error
  char wrong[1000] = "";       ///< empty: the run is as it should be
};

/// Something of everything that a pool does, each step checked. A step may end in an error of the library or of the
/// system, for anything may be refused to it; it may not end in a wrong value, in another error, or not at all.
class workload {
 public:
  /// `before` is called with the pool once it is there.
  verdict run(const std::function<void(procpool::process_pool<>&)>& before = {}) {
    std::optional<procpool::process_pool<>> pool;
    step("construct", [&] {
      procpool::pool_options options;
      options.processes = 2;
      options.max_tasks_per_child = 24;
      options.initializer = [] {};
      options.finalizer = [] {};
      pool.emplace(std::move(options));
      return true;
    });
    if (pool) {
      if (before) before(*pool);
      tasks(*pool);
      ends(*pool);
      step("destroy", [&] {
        pool.reset();
        return true;
      });
    }
    stop_what_runs();
    return verdict_;
  }

 private:
  using pool_type = procpool::process_pool<>;

  void tasks(pool_type& pool) {
    step("apply", [&] { return pool.apply([](int x) { return x + 1; }, 41) == 42; });
    step("map", [&] {
      const auto squares = pool.map([](int x) { return x * x; }, std::views::iota(0, 40), 4);
      return squares.size() == 40 && squares[39] == 1521;
    });
    step("large", [&] {
      const std::string large(300'000, 'x');
      return pool.apply([](std::string text) { return text + "y"; }, large) == large + "y";
    });
    step("shared_array there", [&] {
      const auto array = pool.make_shared_array<int>(5000);
      std::fill(array.begin(), array.end(), 3);
      return pool.apply([](const procpool::shared_array<int>& of) { return std::accumulate(of.begin(), of.end(), 0); },
                        array) == 15000;
    });
    step("shared_array back", [&] {
      const auto array = pool.apply([] {
        const auto made = procpool::make_shared_array<int>(5000);
        made[4999] = 8;
        return made;
      });
      return array.size() == 5000 && array[4999] == 8;
    });
    step("exception", [&] {
      try {
        pool.apply([]() -> int { throw std::out_of_range("a task's own"); });
      } catch (const std::out_of_range& failure) {
        return std::string(failure.what()) == "a task's own";
      }
      return false;
    });
    step("crash", [&] { return crashes(pool, [] { return ::raise(SIGKILL); }); });
    step("exec", [&] { return crashes(pool, [] { return ::execl("/bin/true", "true", nullptr); }); });
    step("try_map", [&] {
      int odd = 0;
      for (const auto& each : pool.try_map(
               [](int x) {
                 if (x == 5) ::_exit(0);
                 return 2 * x;
               },
               std::views::iota(0, 12), 3)) {
        if (each.has_value() && *each % 2 != 0) ++odd;
      }
      return odd == 0;
    });
    step("imap", [&] {
      int sum = 0;
      for (const int x : pool.imap([](int y) { return y; }, std::views::iota(0, 10))) sum += x;
      return sum == 45;
    });
    step("then", [&] { return pool.apply_async([] { return 20; }).then([](int x) { return x + 1; }).get() == 21; });
    step("cancel", [&] {
      auto batch = pool.map_async([](int x) { return x; }, std::views::iota(0, 30), 3);
      if (!batch.cancel()) return batch.get().size() == 30;
      try {
        batch.get();
      } catch (const procpool::task_cancelled&) {
        return true;
      }
      return false;
    });
    step("progress", [&] {
      std::atomic<std::size_t> last{0};
      auto reporting = pool.with({.progress = [&](std::size_t done, std::size_t) { last = done; }});
      return reporting.map([](int x) { return x; }, std::views::iota(0, 20)).size() == 20 && last == 20;
    });
    step("broadcast", [&] {
      pool.broadcast([] {});
      return true;
    });
  }

  /// Closes the pool, which counts every task once.
  void ends(pool_type& pool) {
    step("close", [&] {
      auto last = pool.apply_async([] { return 1; });
      pool.close();
      pool.join();
      return last.get() == 1;
    });
    step("counts", [&] {
      pool.close();  // again, if the step before has failed
      pool.join();
      const procpool::pool_stats stats = pool.stats();
      return stats.tasks_queued == 0 && stats.tasks_running == 0 &&
             stats.tasks_submitted == stats.tasks_completed + stats.tasks_failed;
    });
  }

  void stop_what_runs() {
    step("terminate", [&] {
      pool_type pool{1};
      auto endless = pool.apply_async([] {
        for (;;) ::pause();
      });
      pool.terminate();
      try {
        endless.get();
      } catch (const procpool::pool_terminated&) {
        return true;
      }
      return false;
    });
  }

  template <class Task>
  static bool crashes(pool_type& pool, Task task) {
    try {
      pool.apply(task);
    } catch (const procpool::worker_crashed&) {
      return true;
    }
    return false;  // a value: then it has not happened
  }

  template <class Action>
  void step(const char* name, Action action) {
    try {
      if (action()) {
        ++verdict_.good;
      } else {
        note(verdict_.wrong, name, "wrong result");
      }
    } catch (const procpool::error& failure) {
      refused(name, failure);
    } catch (const procpool::pool_closed& failure) {
      note(verdict_.wrong, name, failure.what());  // nothing has closed it
    } catch (const std::system_error& failure) {
      refused(name, failure);
    } catch (const std::bad_alloc& failure) {
      refused(name, failure);
    } catch (const std::exception& failure) {
      note(verdict_.wrong, name, failure.what());
    } catch (...) {
      note(verdict_.wrong, name, "something that is not a std::exception");
    }
  }

  void refused(const char* name, const std::exception& failure) noexcept {
    ++verdict_.refused;
    note(verdict_.first_error, name, failure.what());
  }

  /// Needs no memory: there may be none.
  template <std::size_t Size>
  static void note(char (&where)[Size], const char* name, const char* what) noexcept {
    if (where[0] == 0) std::snprintf(where, Size, "%s: %s", name, what);
  }

  verdict verdict_;
};

}  // namespace sweeps
