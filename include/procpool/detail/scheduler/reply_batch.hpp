// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>
#include <procpool/detail/scheduler/worker_record.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// Some replies of one worker: first listed under the scheduler's mutex, then read without it, then settled under it,
/// then dropped without it. Used again and again, as its memory is kept.
template <worker_port Port>
class reply_batch {
 public:
  /// Lists what the worker has published behind the number `settled`. `under`: what it is to end; whoever is sentenced
  /// later has not published yet.
  void list(Port& port, std::uint64_t settled, std::uint64_t published, const worker_record::sentence& under) {
    settled_ = settled;
    under_ = under;
    read_ = values_ = part_count_ = 0;
    malformed_ = stops_ = false;
    std::uint64_t listed = settled;
    port.for_each_posted([&](const chunk& each, std::uint64_t first) {
      const std::uint64_t last = std::min(first + each.count - 1, published);
      if (last <= listed || part_count_ == most) return;
      parts_[part_count_++] = {each.target.get(), each.first + static_cast<std::size_t>(listed + 1 - first),
                               static_cast<std::size_t>(last - listed)};
      listed = last;
    });
    port.reading(listed);
  }

  bool empty() const noexcept { return part_count_ == 0; }

  /// Settles their elements, as far as the replies can be believed. The jobs stay: their chunks are in the port until
  /// that is told what is settled.
  void read(Port& port) noexcept {
    std::size_t replies = 0;
    for (std::size_t i = 0; i != part_count_; ++i) {
      for (part left = parts_[i]; left.count != 0;) {
        if (replies++ == most) return;
        const std::size_t count = read_next(port, left);
        if (count == 0) {
          malformed_ = true;
          return;
        }
        read_ += count;
        left.element += count;
        left.count -= count;
      }
    }
  }

  /// What they occupied is free again; the chunks that are through stay until drop(), as their destructors run code of
  /// the user.
  void settle(Port& port) { port.settle(settled(), through_); }
  /// True if anything was read.
  bool drop() noexcept {
    through_.clear();
    return read_ != 0;
  }

  std::uint64_t settled() const noexcept { return settled_ + read_; }
  std::size_t values() const noexcept { return values_; }
  std::size_t failures() const noexcept { return read_ - values_; }
  /// A reply could not be what the worker says it is.
  bool malformed() const noexcept { return malformed_; }
  /// An element has failed behind which others of its job are not to be run.
  bool stops_job() const noexcept { return stops_; }

 private:
  static constexpr std::size_t most = 256;  ///< replies, so that news of a death never waits long; and parts

  /// Consecutive elements of one job.
  struct part {
    job* target;
    std::size_t element;
    std::size_t count;
  };

  /// Settles what the next reply is for, the first elements of `left`, and returns how many that is; 0 if it is malformed.
  std::size_t read_next(Port& port, const part& left) noexcept {
    const std::uint64_t number = settled() + 1;
    const bool condemned = under_.overrules && under_.number == number;
    const bool condemned_later = under_.overrules && under_.number > number;
    const std::uint64_t together = condemned ? 1 : condemned_later ? under_.number - number : left.count;
    const auto answer = port.next_reply(number, std::min<std::uint64_t>(left.count, together));
    if (!answer) return 0;
    if (answer->count != 1) {
      values_ += left.target->settle_series(left.element, answer->count, answer->data, answer->size);
      return answer->count;
    }
    byte_reader bytes(answer->data, answer->size, &port.inbox());
    reply how{answer->kind, &bytes, answer->stable, nullptr};
    if (condemned) how.error = error_of(*left.target, left.element, under_.why, {});
    if (left.target->settle(left.element, how)) {
      ++values_;
    } else if (left.target->stop_on_failure) {
      stops_ = true;
    }
    return 1;
  }

  std::uint64_t settled_ = 0;
  worker_record::sentence under_{};
  part parts_[most];
  std::size_t part_count_ = 0;
  std::size_t read_ = 0;
  std::size_t values_ = 0;
  bool malformed_ = false;
  bool stops_ = false;
  bookkeeping_vector<chunk> through_{};
};

}  // namespace procpool::detail
