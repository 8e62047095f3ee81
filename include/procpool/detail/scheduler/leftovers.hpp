// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/worker_set.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Why an element ends without a worker's reply.
enum class end_cause {
  cancelled,
  timed_out,  ///< ran past its limit
  terminated,
  broken,     ///< no worker is left to run it
  skipped,    ///< an element of its job before it has failed
  too_large,  ///< its arguments do not fit in an empty lane
};

/// What has been decided under the scheduler's mutex and is done without it, as it runs code of the user: settling
/// elements, and destroying chunks (the last one of a job takes the job along).
struct leftovers {
  /// Nothing is left to do but to destroy it.
  bool nothing() const noexcept { return ended.empty() && to_wake.empty() && !wake_collector; }

  struct ended_chunk {
    chunk what;
    end_cause why;
  };

  bookkeeping_vector<ended_chunk> ended{};
  bookkeeping_vector<chunk> through{};  ///< of a worker that is gone
  worker_set to_wake{};                 ///< workers that have something new to look at
  bool wake_collector = false;          ///< it has to look sooner than it meant to
  std::string why_broken{};             ///< for end_cause::broken
};

/// One element that a worker had started when it ended, and that fails.
struct lost_element {
  chunk what;
  std::optional<end_cause> why;  ///< unless the worker's end is the reason
};

/// "2.5 s", "500 ms", "300 ns"
inline std::string in_words(std::chrono::nanoseconds duration) {
  const auto count = static_cast<double>(duration.count());
  char text[32];
  if (count >= 1e9) {
    std::snprintf(text, sizeof(text), "%.6g s", count / 1e9);
  } else if (count >= 1e6) {
    std::snprintf(text, sizeof(text), "%.6g ms", count / 1e6);
  } else if (count >= 1e3) {
    std::snprintf(text, sizeof(text), "%.6g us", count / 1e3);
  } else {
    std::snprintf(text, sizeof(text), "%.6g ns", count);
  }
  return text;
}

/// What such an element ends in; std::bad_alloc if there is no memory for the error.
inline std::exception_ptr error_of(const job& target, std::size_t element, end_cause why,
                                   const std::string& why_broken) noexcept try {
  const std::string place = target.place(element) + ": ";
  switch (why) {
    case end_cause::cancelled:
      return std::make_exception_ptr(make_error<task_cancelled>(place + "cancelled"));
    case end_cause::timed_out: {
      const std::chrono::nanoseconds limit = target.limits.timeout;
      return std::make_exception_ptr(
          make_error<task_timeout>(place + "it ran longer than its time limit of " + in_words(limit), limit));
    }
    case end_cause::terminated:
      return std::make_exception_ptr(make_error<pool_terminated>(place + "the pool was terminated"));
    case end_cause::broken:
      return std::make_exception_ptr(make_error<pool_broken>(place + why_broken));
    case end_cause::too_large:
      return std::make_exception_ptr(make_error<out_of_shared_memory>(place + "its arguments do not fit in a lane"));
    case end_cause::skipped:
      break;
  }
  return nullptr;
} catch (...) {
  return std::current_exception();
}

/// Settles every element that has ended, which have been counted already, and returns how many those were.
inline std::size_t settle_ended(leftovers& done) noexcept {
  std::size_t count = 0;
  for (auto& [what, why] : done.ended) {
    count += what.count;
    for (std::size_t element = what.first; element != what.first + what.count; ++element) {
      reply how;
      how.kind = reply_kind::skipped;
      how.error = error_of(*what.target, element, why, done.why_broken);
      what.target->settle(element, how);
    }
  }
  done.ended.clear();
  return count;
}

}  // namespace procpool::detail
