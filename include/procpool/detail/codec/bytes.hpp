// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/error.hpp>

namespace procpool::detail {

class array_block;  // one shared_array's memory: a sealed memfd and its mapping

/// Every payload starts at an address that is a multiple of this, and is only ever moved by a multiple of it:
/// padding is a function of the position alone, so what lies aligned for the writer lies aligned for the reader.
inline constexpr std::size_t payload_alignment = 64;

/// Copies of more bytes than that are made piece by piece. The C library's copy of what is larger than the caches passes
/// them by, which gains some tenths, and where the destination lies a little above the source modulo a page loses half.
inline constexpr std::size_t copied_at_a_time = std::size_t{8} << 20;

inline void copy_bytes(std::byte* to, const std::byte* from, std::size_t n) noexcept {
  for (std::size_t piece; n != 0; n -= piece, to += piece, from += piece) {
    piece = std::min(n, copied_at_a_time);
    std::memcpy(to, from, piece);
  }
}

/// An append-only run of bytes with the shared arrays that travel beside them. Where the bytes lie is the
/// derived class's business: on the heap, or in a worker's half of its lane.
class byte_writer {
 public:
  byte_writer(const byte_writer&) = delete;
  byte_writer& operator=(const byte_writer&) = delete;

  const std::byte* data() const noexcept { return data_; }
  std::byte* data() noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }

  /// `n` more bytes at the returned address, not yet written. Throws what grow() throws, and is then unchanged.
  std::byte* extend(std::size_t n) {
    if (n > capacity_ - size_) {
      if (n > static_cast<std::size_t>(PTRDIFF_MAX) - size_) throw std::bad_alloc();
      grow(size_ + n);
    }
    std::byte* at = data_ + size_;
    size_ += n;
    return at;
  }

  void write(const void* from, std::size_t n) {
    if (n != 0) copy_bytes(extend(n), static_cast<const std::byte*>(from), n);
  }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  void put(const T& value) {
    std::memcpy(extend(sizeof(T)), std::addressof(value), sizeof(T));
  }

  /// Pads with zero bytes to a multiple of `alignment`, a power of two up to payload_alignment.
  void align(std::size_t alignment) {
    if (reinterpret_cast<std::uintptr_t>(data_) % alignment != 0)
      grow(capacity_ + 1);  // padding goes by the address too
    const std::size_t pad = (alignment - size_ % alignment) % alignment;
    if (pad != 0) std::memset(extend(pad), 0, pad);
  }

  /// Forgets all bytes and attachments past `size` and `attachments`: back to an earlier state.
  void truncate(std::size_t size, std::size_t attachments) {
    size_ = size;
    if (attachments_) attachments_->resize(attachments);
  }

  /// A shared array whose handle lies in these bytes: its descriptor travels beside them.
  void attach(std::shared_ptr<array_block> block) {
    if (!attachments_) attachments_ = std::make_unique<std::vector<std::shared_ptr<array_block>>>();
    attachments_->push_back(std::move(block));
  }
  std::span<const std::shared_ptr<array_block>> attachments() const noexcept {
    if (!attachments_) return {};
    return *attachments_;
  }

 protected:
  byte_writer() = default;
  ~byte_writer() = default;

  /// Makes capacity_ at least `needed`, keeping the first size_ bytes; data_ is payload_alignment-aligned afterwards.
  virtual void grow(std::size_t needed) = 0;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;

 private:
  std::unique_ptr<std::vector<std::shared_ptr<array_block>>> attachments_;  // most bytes have none
};

/// Memory that an engine offers for large payloads, since its workers read them where they lie. Safe to use in any thread.
class large_memory {
 public:
  static constexpr std::size_t least = std::size_t{32} << 10;  ///< smaller payloads are copied as fast

  /// `n` bytes at a multiple of payload_alignment; null if there is no room for them.
  virtual std::byte* allocate(std::size_t n) noexcept = 0;
  virtual void deallocate(std::byte* block) noexcept = 0;

 protected:
  ~large_memory() = default;
};

/// While it lives, large payloads that this thread encodes lie in that memory, if there is room; null: on the heap.
class encoding_for {
 public:
  explicit encoding_for(large_memory* memory) noexcept : before_(std::exchange(memory_, memory)) {}
  encoding_for(const encoding_for&) = delete;
  encoding_for& operator=(const encoding_for&) = delete;
  ~encoding_for() { memory_ = before_; }

  static large_memory* memory() noexcept { return memory_; }

 private:
  static inline constinit thread_local large_memory* memory_ = nullptr;
  large_memory* before_;
};

/// Bytes in this process; a few, as those of most arguments, in the writer itself, more on the heap, and many in the
/// memory that the engine offers (encoding_for).
class heap_writer final : public byte_writer {
 public:
  heap_writer() noexcept {
    data_ = few_;
    capacity_ = sizeof(few_);
  }
  ~heap_writer() { free_block(); }

  void clear() { truncate(0, 0); }
  /// Forgets the bytes if they lie in an engine's memory, and gives that back.
  void leave_large_memory() noexcept {
    if (data_ == few_ || block_.of == nullptr) return;
    free_block();
    data_ = few_;
    size_ = 0;
    capacity_ = sizeof(few_);
  }
  /// Makes room for `n` bytes in all, if there is memory for them now.
  void reserve(std::size_t n) noexcept {
    try {
      if (n > capacity_) grow(n);
    } catch (const std::bad_alloc&) {  // it may never be needed
    }
  }

 private:
  void grow(std::size_t needed) override {
    std::size_t room = std::max(needed, std::min(capacity_ * 2, capacity_ + (std::size_t{1} << 30)));
    room = (room + payload_alignment - 1) / payload_alignment * payload_alignment;
    large_memory* const large = room > large_memory::least ? encoding_for::memory() : nullptr;
    std::byte* fresh = large == nullptr ? nullptr : large->allocate(room);
    block taken{fresh, large};
    if (fresh == nullptr) {
      // Aligned here, as aligned_alloc parts its blocks and costs several times what malloc costs.
      std::size_t space = room + payload_alignment - 1;
      taken = {std::malloc(space), nullptr};
      if (taken.memory == nullptr) throw std::bad_alloc();
      void* first = taken.memory;
      fresh = static_cast<std::byte*>(std::align(payload_alignment, room, first, space));
    }
    if (size_ != 0) std::memcpy(fresh, data_, size_);
    free_block();
    block_ = taken;
    data_ = fresh;
    capacity_ = room;
  }

  void free_block() noexcept {
    if (data_ == few_) return;
    if (block_.of != nullptr) {
      block_.of->deallocate(static_cast<std::byte*>(block_.memory));
    } else {
      std::free(block_.memory);
    }
  }

  /// What data_ lies in.
  struct block {
    void* memory;
    large_memory* of;  ///< null: the heap's
  };
  union {
    alignas(std::uint64_t) std::byte few_[24];
    block block_;
  };
};
static_assert(sizeof(heap_writer) <= 64, "procpool: there is one per task");

/// Where a reader finds the shared arrays that came beside its bytes.
class attachment_source {
 public:
  /// The array of that identity, mapped; null if none came.
  virtual std::shared_ptr<array_block> take(std::uint64_t identity) = 0;

 protected:
  ~attachment_source() = default;
};

/// A cursor over bytes that may come from a stranger. Each byte is fetched once, by a copy into private memory, and
/// every length is checked against what is left, so bytes that change meanwhile yield garbage values, never a wild access.
class byte_reader {
 public:
  byte_reader(const void* data, std::size_t size, attachment_source* attachments = nullptr) noexcept
      : at_(static_cast<const std::byte*>(data)), end_(at_ + size), attachments_(attachments) {}

  std::size_t remaining() const noexcept { return static_cast<std::size_t>(end_ - at_); }

  /// The next `n` bytes where they lie. Throws serialization_error if fewer are left.
  const std::byte* take(std::size_t n) {
    if (n > remaining()) throw_short(n);
    const std::byte* from = at_;
    at_ += n;
    return from;
  }

  void read(void* to, std::size_t n) {
    const std::byte* from = take(n);
    if (n != 0) std::memcpy(to, from, n);
  }

  template <class T>
    requires std::is_trivially_copyable_v<T>
  T get() {
    alignas(T) std::byte copy[sizeof(T)];
    read(copy, sizeof(T));
    return std::bit_cast<T>(copy);
  }

  /// Skips the writer's padding: to the next address that is a multiple of `alignment`.
  void align(std::size_t alignment) {
    const auto address = reinterpret_cast<std::uintptr_t>(at_);
    take((alignment - address % alignment) % alignment);
  }

  attachment_source* attachments() const noexcept { return attachments_; }

 private:
  [[noreturn]] void throw_short(std::size_t wanted) const {
    throw make_error<serialization_error>(
        "decoding: " + std::to_string(wanted) + " bytes wanted, " + std::to_string(remaining()) + " left",
        std::string("bytes"));
  }

  const std::byte* at_;
  const std::byte* end_;
  attachment_source* attachments_;
};

}  // namespace procpool::detail
