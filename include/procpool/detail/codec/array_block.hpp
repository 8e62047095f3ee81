// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>
#include <procpool/error.hpp>

namespace procpool::detail {

class array_block;

/// Told of the end of blocks that were tied to it.
class array_keeper {
 public:
  /// The last handle is gone: from that thread, which may be any, and in forked processes as well.
  virtual void let_go(const array_block& block) noexcept = 0;

 protected:
  ~array_keeper() = default;
};

/// The memory of one shared array: a memfd of fixed size (`memfd_create(2)`), sealed so that no holder can shrink it
/// under another's reads, and its mapping here. It has no name: the kernel frees it with the last descriptor and
/// mapping, whoever dies holding it. Its pages come into being when they are first written.
class array_block {
  struct key {};

 public:
  array_block(key, unique_fd&& fd, std::uint64_t identity, std::size_t bytes) : identity_(identity), bytes_(bytes) {
    void* at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (at == MAP_FAILED) throw_errno("mmap");
    data_ = static_cast<std::byte*>(at);
    fd_ = std::move(fd);
  }
  array_block(const array_block&) = delete;
  array_block& operator=(const array_block&) = delete;
  ~array_block() {
    for (const auto& each : keepers_) {
      if (const auto keeper = each.lock()) keeper->let_go(*this);
    }
    ::munmap(data_, bytes_);
    forget(identity_);
  }

  /// A block of zeroes, `bytes` > 0 long. Throws std::system_error naming the call that failed.
  static std::shared_ptr<array_block> create(std::size_t bytes) {
    unique_fd fd = above_standard_streams(
        unique_fd(checked(::memfd_create("procpool-array", MFD_CLOEXEC | MFD_ALLOW_SEALING), "memfd_create")));
    if (bytes > static_cast<std::size_t>(PTRDIFF_MAX)) throw_errno("ftruncate", EFBIG);
    checked(retry_on_eintr([&] { return ::ftruncate(fd.get(), static_cast<off_t>(bytes)); }), "ftruncate");
    checked(::fcntl(fd.get(), F_ADD_SEALS, seals), "fcntl");
    struct stat status{};
    checked(::fstat(fd.get(), &status), "fstat");
    return enter(std::move(fd), static_cast<std::uint64_t>(status.st_ino), bytes);
  }

  /// The block behind a descriptor that came from another process; the one that is mapped already if there is one.
  /// Throws serialization_error unless the descriptor is one of a sealed memfd, and std::system_error naming mmap; the
  /// descriptor is still the caller's then.
  static std::shared_ptr<array_block> adopt(unique_fd&& fd) {
    struct stat status{};
    const int seals_found = ::fcntl(fd.get(), F_GET_SEALS);
    if (seals_found == -1 || (seals_found & seals) != seals || ::fstat(fd.get(), &status) == -1 ||
        !S_ISREG(status.st_mode) || status.st_size <= 0) {
      throw make_error<serialization_error>("shared_array: the descriptor that arrived is not of a sealed memfd",
                                            std::string("procpool::shared_array"));
    }
    return enter(std::move(fd), static_cast<std::uint64_t>(status.st_ino), static_cast<std::size_t>(status.st_size));
  }

  int fd() const noexcept { return fd_.get(); }
  /// The same in every process that holds the block, and no other block's while it lives.
  std::uint64_t identity() const noexcept { return identity_; }
  std::size_t bytes() const noexcept { return bytes_; }
  std::byte* data() const noexcept { return data_; }

  /// Ties a keeper to the block: it is told of the block's end, if it lives until then.
  void tie(const std::shared_ptr<array_keeper>& keeper) {
    const std::lock_guard lock(registry::get().mutex);
    bool known = false;
    std::erase_if(keepers_, [&](const std::weak_ptr<array_keeper>& each) {
      const auto other = each.lock();
      known = known || other == keeper;
      return !other;
    });
    if (!known) keepers_.push_back(keeper);
  }

  /// Gives up the descriptor of a block that is about to go.
  unique_fd release() noexcept { return std::move(fd_); }

 private:
  static constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

  // Which blocks are mapped in this process, so that one that arrives again is not mapped again. A child that is forked
  // while another thread of its parent holds the mutex would find it held for ever; pthread_atfork keeps it free.
  struct registry {
    std::mutex mutex;
    std::unordered_map<std::uint64_t, std::weak_ptr<array_block>> blocks;

    static registry& get() {
      static registry* const instance = [] {
        auto* made = new registry;  // never destroyed: arrays of static storage duration may outlive it
        ::pthread_atfork([] { get().mutex.lock(); }, [] { get().mutex.unlock(); }, [] { get().mutex.unlock(); });
        return made;
      }();
      return *instance;
    }
  };

  static std::shared_ptr<array_block> enter(unique_fd&& fd, std::uint64_t identity, std::size_t bytes) {
    registry& known = registry::get();
    const std::lock_guard lock(known.mutex);
    std::weak_ptr<array_block>& entry = known.blocks[identity];
    std::shared_ptr<array_block> block = entry.lock();
    if (!block) {
      block = std::make_shared<array_block>(key(), std::move(fd), identity, bytes);
      entry = block;
    }
    return block;
  }

  static void forget(std::uint64_t identity) noexcept {
    registry& known = registry::get();
    const std::lock_guard lock(known.mutex);
    const auto found = known.blocks.find(identity);
    if (found != known.blocks.end() && found->second.expired()) known.blocks.erase(found);
  }

  unique_fd fd_;
  std::uint64_t identity_;
  std::size_t bytes_;
  std::byte* data_ = nullptr;
  bookkeeping_vector<std::weak_ptr<array_keeper>> keepers_;  ///< under the registry's mutex
};

}  // namespace procpool::detail
