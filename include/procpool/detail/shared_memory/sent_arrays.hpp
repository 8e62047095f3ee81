// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <utility>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/codec/array_block.hpp>
#include <procpool/detail/posix/process.hpp>
#include <procpool/detail/shared_memory/attachments.hpp>
#include <procpool/detail/shared_memory/lane_protocol.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// What the parent knows of the shared arrays that the worker of a lane keeps. These are not sent again; each is let go
/// with the parent's last handle, or when it is the least recently used and another one wants its place.
///
/// What an element names is held by its chunk, and what lies in the lane is not given up: so what a posted element names
/// is kept until it is settled, whether it was sent with this element, or one before, or one that was taken back.
class sent_arrays final : public array_keeper {
 public:
  using block_ptr = std::shared_ptr<array_block>;

  sent_arrays(request_half& requests, const reply_half& replies) noexcept : requests_(requests), replies_(replies) {}

  /// A new worker is to start, which keeps nothing; only while there is none.
  void reset(int socket) noexcept {
    const std::lock_guard lock(mutex_);
    socket_ = socket;
    pass_up_to(0);
    for (std::size_t i = 0; i != most_kept_arrays; ++i) give_up(i);
  }

  /// There is no worker any more, or soon no lane.
  void close() noexcept {
    const std::lock_guard lock(mutex_);
    socket_ = -1;
    for (place& each : places_) each = {};
  }

  /// Sends what the worker does not keep of the arrays that elements up to `number` name; the highest that is settled is
  /// `settled`. False if the socket is full for now, or the worker gone. `self` is this.
  bool send(const std::shared_ptr<sent_arrays>& self, std::uint64_t number, std::uint64_t settled,
            std::initializer_list<std::span<const block_ptr>> all) noexcept {
    const std::lock_guard lock(mutex_);
    bookkeeping_vector<int> passing;
    bookkeeping_vector<int> to_keep;
    bookkeeping_vector<std::size_t> fresh;
    for (const auto& some : all) {
      for (const block_ptr& block : some) {
        const std::size_t i = place_for(*block, settled);
        if (i == most_kept_arrays) {
          passing.push_back(block->fd());
          continue;
        }
        place& kept = places_[i];
        if (kept.block != block.get()) {
          block->tie(self);
          kept = {block.get(), number, false};
          say(i, block->identity());
        }
        kept.last_use = number;
        if (std::exchange(kept.sent, true)) continue;
        fresh.push_back(i);
        to_keep.push_back(block->fd());
      }
    }
    if (passing.empty() && to_keep.empty()) return true;
    if (!passing.empty()) pass_up_to(number);
    const bool sent = send_attachments(socket_, number, std::move(passing), MSG_DONTWAIT) &&
                      send_attachments(socket_, attachment_message::keep, std::move(to_keep), MSG_DONTWAIT);
    if (!sent) {
      for (const std::size_t i : fresh) places_[i].sent = false;
    }
    tell();
    return sent;
  }

  /// Elements above `number` have been taken back, or were not posted after all: what was sent for these alone is to be let
  /// go.
  void taken_back(std::uint64_t number) noexcept {
    const std::lock_guard lock(mutex_);
    for (place& each : places_) each.last_use = std::min(each.last_use, number);
    if (passing_ <= number) return;
    pass_up_to(number);
    tell();
    wake();
  }

  /// The worker may have missed something, as it had no descriptor or no memory left: all is sent again when it is named.
  void doubt() noexcept {
    const std::lock_guard lock(mutex_);
    for (place& each : places_) each.sent = false;
  }

  void let_go(const array_block& block) noexcept override {
    if (current_process() != process_) return;  // where the lane is not mapped, and the mutex may be locked for ever
    const std::lock_guard lock(mutex_);
    const std::size_t i = find(block);
    if (i == most_kept_arrays) return;
    give_up(i);
    tell();
    wake();
  }

 private:
  struct place {
    const array_block* block = nullptr;  ///< null: free
    std::uint64_t last_use = 0;          ///< the highest number that may name it
    bool sent = false;
  };

  std::size_t find(const array_block& block) const noexcept {
    std::size_t i = 0;
    while (i != most_kept_arrays && places_[i].block != &block) ++i;
    return i;
  }

  /// The place that the array has, or a free one, or else that of the array that has not been named for the longest time
  /// and is not named by what is posted. most_kept_arrays if there is none.
  std::size_t place_for(const array_block& block, std::uint64_t settled) const noexcept {
    if (const std::size_t own = find(block); own != most_kept_arrays) return own;
    std::size_t least = most_kept_arrays;
    for (std::size_t i = 0; i != most_kept_arrays; ++i) {
      if (places_[i].block == nullptr) return i;
      if (places_[i].last_use > settled) continue;
      if (least == most_kept_arrays || places_[i].last_use < places_[least].last_use) least = i;
    }
    return least;
  }

  void give_up(std::size_t i) noexcept {
    places_[i] = {};
    say(i, 0);
  }

  // What these write is seen by whoever hears of it from tell(), which is seen with what is allowed afterwards, or by a
  // worker that is woken.
  void say(std::size_t i, std::uint64_t identity) noexcept {
    requests_.kept_arrays[i].store(identity, std::memory_order_relaxed);
  }
  void pass_up_to(std::uint64_t number) noexcept {
    passing_ = number;
    requests_.passing_arrays.store(number, std::memory_order_relaxed);
  }
  void tell() noexcept { requests_.array_news.fetch_add(1, std::memory_order_release); }
  void wake() noexcept { protocol::wake(requests_, replies_, sleeping_for::work); }

  const pid_t process_ = current_process();
  request_half& requests_;
  const reply_half& replies_;
  std::mutex mutex_;
  int socket_ = -1;
  place places_[most_kept_arrays];
  std::uint64_t passing_ = 0;  ///< the highest number that arrays were sent for which are not to be kept
};

}  // namespace procpool::detail
