// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/shared_array.hpp>

namespace procpool::detail {

/// Beside the descriptors of shared arrays on the socket between the parent and a worker.
struct attachment_message {
  static constexpr std::uint64_t keep = ~std::uint64_t{0};

  std::uint64_t number;  ///< of the last element whose payload may hold their handles; `keep`: until they are let go
};

/// Sends descriptors of arrays, each once, for the elements up to `number`. False, with errno, if not all were sent.
inline bool send_attachments(int socket, std::uint64_t number, bookkeeping_vector<int> fds, int flags) {
  std::sort(fds.begin(), fds.end());
  fds.erase(std::unique(fds.begin(), fds.end()), fds.end());
  for (std::size_t sent = 0; sent < fds.size(); sent += most_descriptors) {
    const auto some = std::span<const int>(fds).subspan(sent, std::min(most_descriptors, fds.size() - sent));
    if (!send_message(socket, attachment_message{number}, some, flags)) return false;
  }
  return true;
}
inline bool send_attachments(int socket, std::uint64_t number, std::span<const std::shared_ptr<array_block>> blocks,
                             int flags) {
  bookkeeping_vector<int> fds;
  fds.reserve(blocks.size());
  for (const auto& block : blocks) fds.push_back(block->fd());
  return send_attachments(socket, number, std::move(fds), flags);
}

/// The shared arrays that have come over the socket of a lane, until the elements they belong to are through. They are
/// sent before the element is posted (or published), so what a payload names is there when the payload is read.
class attachment_inbox final : public attachment_source {
 public:
  /// More than this many waiting at once come from a stranger.
  static constexpr std::size_t most = 65536;

  explicit attachment_inbox(int socket) : socket_(socket) {}

  std::shared_ptr<array_block> take(std::uint64_t identity) override {
    receive();
    return find(identity);
  }

  /// The same, of what has been taken in. The last that came counts: identities are used again once a block is gone.
  std::shared_ptr<array_block> find(std::uint64_t identity) {
    const auto found = std::find_if(entries_.rbegin(), entries_.rend(),
                                    [identity](const entry& each) { return each.identity == identity; });
    if (found == entries_.rend()) return nullptr;
    if (!found->block) {
      found->block = array_block::adopt(std::move(found->fd));
      found->fd.reset();  // not needed if the block was mapped already
    }
    return found->block;
  }

  /// Takes in what has come. False if the other end is closed, or sends without end.
  bool receive() noexcept {
    for (;;) {
      attachment_message message{};
      const std::size_t before = entries_.size();
      const auto keep = [this](unique_fd fd) {
        struct stat status{};
        if (!fd || ::fstat(fd.get(), &status) != 0) return;
        try {
          entries_.push_back({0, static_cast<std::uint64_t>(status.st_ino), std::move(fd), nullptr});
        } catch (...) {  // out of memory: the payload that names it cannot be decoded
        }
      };
      const received got = receive_message(socket_, message, keep);
      if (got == received::nothing) return true;
      if (got == received::closed || entries_.size() > most) return false;
      for (std::size_t i = before; i != entries_.size(); ++i) entries_[i].number = message.number;
    }
  }

  /// Elements above `number` were taken back: what has come for them is for those up to it.
  void take_back(std::uint64_t number) noexcept {
    for (entry& each : entries_) {
      if (!each.kept()) each.number = std::min(each.number, number);
    }
  }

  /// Forgets what belongs to elements up to `number`.
  void discard(std::uint64_t number) noexcept {
    if (entries_.empty()) return;
    std::erase_if(entries_, [number](const entry& each) { return each.number <= number; });
  }

  /// Forgets what was to be kept and is not any more, and what has come again since.
  template <class Predicate>
  void let_go_unless(Predicate kept) noexcept {
    for (std::size_t i = entries_.size(); i-- != 0;) {
      entry& each = entries_[i];
      if (!each.kept()) continue;
      const auto behind = entries_.begin() + static_cast<std::ptrdiff_t>(i) + 1;
      const bool again = std::any_of(
          behind, entries_.end(), [&](const entry& later) { return later.kept() && later.identity == each.identity; });
      if (again || !kept(each.identity)) entries_.erase(behind - 1);
    }
  }

  /// Unmaps what nobody else in this process holds; find() maps it anew.
  void unmap() noexcept {
    for (entry& each : entries_) {
      if (!each.block || each.block.use_count() != 1) continue;
      each.fd = each.block->release();
      each.block.reset();
    }
  }

  void clear() noexcept { entries_.clear(); }

 private:
  struct entry {
    std::uint64_t number;  ///< that came with it
    std::uint64_t identity;
    unique_fd fd;
    std::shared_ptr<array_block> block;

    bool kept() const noexcept { return number == attachment_message::keep; }
  };

  int socket_;
  std::deque<entry> entries_;
};

}  // namespace procpool::detail
