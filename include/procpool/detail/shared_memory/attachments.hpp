// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <utility>

#include <sys/stat.h>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/shared_array.hpp>

namespace procpool::detail {

/// Beside the descriptor of a shared array on the socket between the parent and a worker.
struct attachment_message {
  std::uint64_t number;  ///< of the element whose payload holds the handle
};

/// The shared arrays that have come over the socket of a lane, until the elements they belong to are through. They are
/// sent before the element is posted (or published), so what a payload names is there when the payload is read.
class attachment_inbox final : public attachment_source {
 public:
  /// More than this many waiting at once come from a stranger.
  static constexpr std::size_t most = 4096;

  explicit attachment_inbox(int socket) noexcept : socket_(socket) {}

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
      unique_fd fd;
      const received got = receive_message(socket_, message, fd);
      if (got == received::nothing) return true;
      if (got == received::closed || entries_.size() >= most) return false;
      struct stat status {};
      if (!fd || ::fstat(fd.get(), &status) != 0) continue;
      try {
        entries_.push_back({message.number, static_cast<std::uint64_t>(status.st_ino), std::move(fd), nullptr});
      } catch (...) {
        return true;  // out of memory: the payload that names it cannot be decoded
      }
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
