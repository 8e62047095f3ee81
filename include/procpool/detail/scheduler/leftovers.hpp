// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <exception>
#include <string>
#include <vector>

#include <procpool/detail/job.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

/// Why an element ends without a worker's reply.
enum class end_cause {
  cancelled,
  terminated,
  broken,     ///< no worker is left to run it
  skipped,    ///< an element of its job before it has failed
  too_large,  ///< its arguments do not fit in an empty lane
};

/// What has been decided under the scheduler's mutex and is done without it, as it runs code of the user: settling
/// elements, and destroying chunks (the last one of a job takes the job along).
struct leftovers {
  struct ended_chunk {
    chunk what;
    end_cause why;
  };

  std::vector<ended_chunk> ended{};
  std::vector<chunk> through{};
  std::vector<std::size_t> to_wake{};  ///< workers that have something new to look at
  std::string why_broken{};            ///< for end_cause::broken
};

inline std::exception_ptr error_of(const job& target, std::size_t element, end_cause why,
                                   const std::string& why_broken) {
  const std::string place = target.place(element) + ": ";
  switch (why) {
    case end_cause::cancelled:
      return std::make_exception_ptr(make_error<task_cancelled>(place + "cancelled"));
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
