// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>

namespace procpool::detail {

/// What the scheduler knows of the worker with one index. Guarded by the scheduler's mutex.
struct worker_record {
  enum class phase {
    vacant,    ///< there is no process; one is due at `start_at`, or none is needed any more
    starting,  ///< forked or being forked; its initializer has not ended
    ready,     ///< takes tasks
    leaving,   ///< told to leave in good order; gets no more tasks
    given_up,  ///< could not be started several times in a row, or never lived long enough
  };

  /// What the worker runs is to end, for this reason: nothing else is given to it until it has.
  struct sentence {
    std::uint64_t number = 0;           ///< of the element; 0: there is none
    end_cause why{};                    ///< what it ends in if the worker dies
    bool overrules = false;             ///< also if the worker returns a result after all
    steady_time kill_at = no_deadline;  ///< when its grace is over
  };

  phase now = phase::vacant;
  std::uint64_t generation = 0;  ///< of the process that is there, or is to be started next
  pid_t pid = 0;
  const char* killed_because = nullptr;  ///< why the pool killed it; null if it did not
  sentence under{};
  std::uint64_t head = 0;               ///< the first element that has not ended, when it was last looked at,
  steady_time head_since{};             ///< since when it was that, if it has a time limit,
  steady_time head_runs_since{};        ///< and when it was first seen to run
  steady_time killed_at = no_deadline;  ///< when the order was given
  bool orphan = false;                  ///< the process that started it is gone
  bool malformed = false;               ///< its replies cannot be believed any more
  bool hung_up = false;                 ///< its end of the socket is closed
  std::uint64_t first_number = 0;       ///< the number below its first element
  bookkeeping_deque<chunk> own{};       ///< chunks that only this worker may run (broadcast)
  std::size_t completed = 0;            ///< elements that ended in a value, over all generations
  int failed_starts = 0;                ///< in a row
  int stillborn = 0;                    ///< how many in a row have ended early without having run anything
  std::string failure{};                ///< why the last one failed
  steady_time start_at = no_deadline;   ///< vacant: when to try again
  steady_time kill_at = no_deadline;    ///< when its patience is over, and why
  const char* kill_why = "";
  steady_time ready_since{};

  static constexpr int most_failed_starts = 5;
  /// From when it was ready to when the next is started, if it has run nothing; and how many of those there may be.
  static constexpr auto shortest_life = std::chrono::milliseconds(50);
  static constexpr int most_stillborn = 50;
  static constexpr auto longest_leave = std::chrono::seconds(10);
  static constexpr auto longest_hang_up = std::chrono::milliseconds(50);

  bool killed() const noexcept { return killed_because != nullptr; }
  bool alive() const noexcept { return now == phase::ready || now == phase::leaving; }
  bool has_process() const noexcept { return now == phase::starting || alive(); }

  void kill_after(steady_time::duration patience, const char* why) {
    const steady_time then = std::chrono::steady_clock::now() + patience;
    if (then >= kill_at) return;
    kill_at = then;
    kill_why = why;
  }

  void give_up(std::string why) {
    failure = std::move(why);
    now = phase::given_up;
  }

  /// A start failed. The next is due after 10 ms, 20 ms, … 1 s, and none after five in a row.
  void start_failed(std::string why) {
    ++failed_starts;
    if (failed_starts >= most_failed_starts) return give_up(std::move(why));
    failure = std::move(why);
    now = phase::vacant;
    start_at = std::chrono::steady_clock::now() +
               std::min(std::chrono::milliseconds(1000), std::chrono::milliseconds(10 << (failed_starts - 1)));
  }
};

}  // namespace procpool::detail
