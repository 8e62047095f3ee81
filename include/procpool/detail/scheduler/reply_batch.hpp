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
    count_ = static_cast<std::size_t>(std::min<std::uint64_t>(published - settled, most));
    under_ = under;
    read_ = values_ = 0;
    stops_ = false;
    port.reading(settled_ + count_);
    std::size_t listed = 0;
    port.for_each_posted([&](const chunk& each, std::uint64_t first) {
      for (; listed != count_ && number_of(listed) < first + each.count; ++listed) {
        pending_[listed] = {each.target.get(), each.first + static_cast<std::size_t>(number_of(listed) - first)};
      }
    });
  }

  bool empty() const noexcept { return count_ == 0; }

  /// Settles their elements, as far as the replies can be believed. The jobs stay: their chunks are in the port until
  /// that is told what is settled.
  void read(Port& port) noexcept {
    for (; read_ != count_; ++read_) {
      const auto answer = port.next_reply(number_of(read_));
      if (!answer) return;
      const auto [target, element] = pending_[read_];
      byte_reader bytes(answer->data, answer->size, &port.inbox());
      reply how{answer->kind, &bytes, answer->stable, nullptr};
      if (under_.overrules && under_.number == number_of(read_)) how.error = error_of(*target, element, under_.why, {});
      if (target->settle(element, how)) {
        ++values_;
      } else if (target->stop_on_failure) {
        stops_ = true;
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
  bool malformed() const noexcept { return read_ != count_; }
  /// An element has failed behind which others of its job are not to be run.
  bool stops_job() const noexcept { return stops_; }

 private:
  static constexpr std::size_t most = 256;  ///< so that news of a death never waits long

  struct pending_element {
    job* target;
    std::size_t element;
  };

  std::uint64_t number_of(std::size_t i) const noexcept { return settled_ + 1 + i; }

  std::uint64_t settled_ = 0;
  std::size_t count_ = 0;
  worker_record::sentence under_{};
  pending_element pending_[most];
  std::size_t read_ = 0;
  std::size_t values_ = 0;
  bool stops_ = false;
  bookkeeping_vector<chunk> through_{};
};

}  // namespace procpool::detail
