// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstring>
#include <new>

#include <procpool/detail/codec/stack_range.hpp>

namespace procpool::detail {

/// A base that gives objects of T, a final class of some hundred bytes, their memory: that of several is asked for, and
/// given back, in one go, which costs a tenth. An object may end in another thread than it was made in. A slab goes when
/// all its objects have.
template <class T>
class slab_allocated {
 public:
  static void* operator new(std::size_t) {
    if (open_ == nullptr && !open_slab()) return in_front(static_cast<std::byte*>(::operator new(room())), nullptr);
    void* const object = in_front(reinterpret_cast<std::byte*>(open_ + 1) + next_ * room(), open_);
    if (++next_ == count()) open_ = nullptr;
    return object;
  }
  static void operator delete(void* object) noexcept {
    std::byte* const begin = static_cast<std::byte*>(object) - front();
    slab* from;
    std::memcpy(&from, begin, sizeof(from));
    if (from != nullptr) {
      release(from, 1);
    } else {
      ::operator delete(begin);
    }
  }

 protected:
  slab_allocated() = default;
  ~slab_allocated() = default;

 private:
  struct alignas(std::max_align_t) slab {
    std::atomic<std::size_t> left;  ///< objects that have not ended, or not begun
  };

  // Each object has its slab's address before it. Functions, as T is complete only where they are called.
  static constexpr std::size_t slab_bytes = 4096;
  static constexpr std::size_t front() noexcept { return std::max(sizeof(slab*), alignof(T)); }
  static constexpr std::size_t room() noexcept { return front() + (sizeof(T) + front() - 1) / front() * front(); }
  static constexpr std::size_t count() noexcept { return (slab_bytes - sizeof(slab)) / room(); }

  static void* in_front(std::byte* begin, slab* from) noexcept {
    static_assert(alignof(T) <= alignof(slab) && count() > 8);
    std::memcpy(begin, &from, sizeof(from));
    return begin + front();
  }

  /// False where objects are to have memory of their own.
  static bool open_slab() {
    static thread_local const closer at_exit;
    if (closed_ || alone) return false;
    open_ = ::new (::operator new(sizeof(slab) + count() * room())) slab{.left = count()};
    next_ = 0;
    return true;
  }
  static void release(slab* from, std::size_t objects) noexcept {
    if (from->left.fetch_sub(objects, std::memory_order_acq_rel) == objects) ::operator delete(from);
  }

  /// AddressSanitizer sees that an object is used too late only if its memory is gone.
#if defined(PROCPOOL_DETAIL_ASAN)
  static constexpr bool alone = true;
#else
  static constexpr bool alone = false;
#endif

  /// At the end of the thread: what is left of its slab does not begin any more.
  struct closer {
    ~closer() {
      if (open_ != nullptr) release(open_, count() - next_);
      open_ = nullptr;
      closed_ = true;
    }
  };

  static inline constinit thread_local slab* open_ = nullptr;  ///< with room for one more at least
  static inline constinit thread_local std::size_t next_ = 0;
  static inline constinit thread_local bool closed_ = false;
};

}  // namespace procpool::detail
