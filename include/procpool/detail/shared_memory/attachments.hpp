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
  std::uint64_t number;  ///< of the last element whose payload may hold their handles
};

/// Sends the arrays, each once, for the elements up to `number`. False, with errno, if not all of them were sent.
inline bool send_attachments(int socket, std::uint64_t number, std::span<const std::shared_ptr<array_block>> blocks,
                             int flags) {
  bookkeeping_vector<int> fds;
  fds.reserve(blocks.size());
  for (const auto& block : blocks) fds.push_back(block->fd());
  std::sort(fds.begin(), fds.end());
  fds.erase(std::unique(fds.begin(), fds.end()), fds.end());
  for (std::size_t sent = 0; sent < fds.size(); sent += most_descriptors) {
    const auto some = std::span<const int>(fds).subspan(sent, std::min(most_descriptors, fds.size() - sent));
    if (!send_message(socket, attachment_message{number}, some, flags)) return false;
  }
  return true;
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
    for (entry& waiting : entries_) {
      if (waiting.identity != identity) continue;
      if (!waiting.block) waiting.block = array_block::adopt(std::move(waiting.fd));
      return waiting.block;
    }
    return nullptr;
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

  /// Forgets what belongs to elements up to `number`.
  void discard(std::uint64_t number) noexcept {
    if (entries_.empty()) return;
    std::erase_if(entries_, [number](const entry& waiting) { return waiting.number <= number; });
  }

 private:
  struct entry {
    std::uint64_t number;
    std::uint64_t identity;
    unique_fd fd;
    std::shared_ptr<array_block> block;
  };

  int socket_;
  std::deque<entry> entries_;
};

}  // namespace procpool::detail
