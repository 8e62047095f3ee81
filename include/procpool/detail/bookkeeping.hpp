// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <boost/container/small_vector.hpp>
#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <procpool/detail/small_lock.hpp>

namespace procpool::detail {

/// Memory set aside for the time when there is no other; costs nothing before.
class memory_reserve {
 public:
  static constexpr std::size_t size = std::size_t{512} << 10;

  static memory_reserve& instance() noexcept {
    // Never destroyed: pools with static storage may outlive it.
    alignas(memory_reserve) static std::byte place[sizeof(memory_reserve)];
    static auto* const reserve = new (place) memory_reserve;
    return *reserve;
  }

  /// Null if it is used up.
  void* allocate(std::size_t n) noexcept {
    const std::lock_guard lock(lock_);
    if (!heap_) heap_.emplace(boost::interprocess::create_only, bytes_, size);
    return heap_->allocate(n, std::nothrow);
  }
  bool owns(const void* memory) const noexcept {
    return !std::less<>()(memory, bytes_) && std::less<>()(memory, bytes_ + size);
  }
  void deallocate(void* memory) noexcept {
    const std::lock_guard lock(lock_);
    heap_->deallocate(memory);
  }

 private:
  using heap = boost::interprocess::basic_managed_external_buffer<
      char, boost::interprocess::rbtree_best_fit<boost::interprocess::null_mutex_family>,
      boost::interprocess::null_index>;

  memory_reserve() = default;

  alignas(64) inline static std::byte bytes_[size];
  small_lock lock_;
  std::optional<heap> heap_;
};

/// For what the pool notes of tasks that it has taken on: that must not fail, as every one of them is to end. Where no
/// memory is to be had it comes from the reserve, and when that is used up too, this waits until there is some.
template <class T>
class bookkeeping_allocator {
 public:
  using value_type = T;

  bookkeeping_allocator() = default;
  template <class Other>
  bookkeeping_allocator(const bookkeeping_allocator<Other>&) noexcept {}

  T* allocate(std::size_t n) noexcept {
    static_assert(alignof(T) <= alignof(std::max_align_t));
    const std::size_t bytes = n * sizeof(T);
    for (;;) {
      if (void* const memory = ::operator new(bytes, std::nothrow)) return static_cast<T*>(memory);
      if (void* const memory = memory_reserve::instance().allocate(bytes)) return static_cast<T*>(memory);
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  void deallocate(T* memory, std::size_t) noexcept {
    if (memory_reserve::instance().owns(memory)) return memory_reserve::instance().deallocate(memory);
    ::operator delete(memory);
  }

  template <class Other>
  bool operator==(const bookkeeping_allocator<Other>&) const noexcept {
    return true;
  }
};

template <class T>
using bookkeeping_vector = std::vector<T, bookkeeping_allocator<T>>;
/// The first `few` elements need no memory.
template <class T, std::size_t few>
using bookkeeping_small_vector = boost::container::small_vector<T, few, bookkeeping_allocator<T>>;
template <class T>
using bookkeeping_deque = std::deque<T, bookkeeping_allocator<T>>;

/// The text that `make` makes, or that there is no memory for it: a text is no reason to end the process.
template <class Make>
std::string text_of(Make make) noexcept {
  try {
    return make();
  } catch (...) {
    return "out of memory";  // fits in the string itself
  }
}

}  // namespace procpool::detail
