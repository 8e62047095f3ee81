// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/deadline.hpp>

namespace procpool::detail {

/// How many inputs of a lazy range travel together: as many as was asked for and, as long as results are yielded so fast
/// that nobody could tell, more and more.
class chunk_pace {
 public:
  /// A result that is yielded this much after the one before it is slow.
  static constexpr std::chrono::microseconds slow{10};

  chunk_pace() = default;
  chunk_pace(std::size_t chunksize, std::size_t most) noexcept
      : least_(chunksize), most_(std::max(chunksize, most)), size_(chunksize) {}

  std::size_t size() const noexcept { return size_; }

  /// Looks at the pace since it was called last; `yielded` counts results, `now()` is the time.
  template <class Clock>
  void adapt(std::size_t yielded, Clock now) noexcept {
    if (most_ == least_) return;
    const steady_time when = now();
    const bool fast = when - when_ < slow * static_cast<std::int64_t>(yielded - yielded_);
    when_ = when;
    yielded_ = yielded;
    size_ = fast ? std::min(2 * size_, most_) : least_;
  }

 private:
  std::size_t least_ = 1;
  std::size_t most_ = 1;
  std::size_t size_ = 1;
  steady_time when_{};       // when it was adapted last,
  std::size_t yielded_ = 0;  // and what had been yielded then
};

}  // namespace procpool::detail
