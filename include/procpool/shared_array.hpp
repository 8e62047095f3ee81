// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include <procpool/detail/codec/array_block.hpp>
#include <procpool/detail/codec/encode.hpp>

namespace procpool {

template <class T>
shared_array<T> make_shared_array(std::size_t size);

/// A fixed-size array in memory that processes share. The object is a handle: copying it copies no element, and a const
/// handle gives access to elements that can be written, like std::span.
/// Shapes   `size()` elements, all zero bytes at first; default-constructed it is empty. Sending it costs the same
///          whatever its size, and little more than an int if the worker has been given it before.
/// Memory   comes into being page by page as it is written, and is freed with the last handle in any process, also if
///          that process died. A handle may outlive pool and worker. Workers keep what they are given mapped until the
///          parent's last handle is gone; one that runs a task lets go when that has ended. The pool's own handles, of
///          arguments and results, go a moment after the task has ended.
/// Threads  reads and writes by several processes are as unordered as those by several threads: use std::atomic_ref.
template <class T>
class shared_array {
  static_assert(std::is_trivially_copyable_v<T> && std::is_object_v<T> && !std::is_const_v<T>,
                "procpool: the elements of a shared_array are seen by other processes as they lie in memory; use a "
                "trivially copyable element type, or a std::vector<T>");

 public:
  using element_type = T;
  using value_type = T;
  using size_type = std::size_t;
  using difference_type = std::ptrdiff_t;
  using pointer = T*;
  using reference = T&;
  using iterator = T*;

  shared_array() noexcept = default;
  shared_array(const shared_array&) noexcept = default;
  shared_array& operator=(const shared_array&) noexcept = default;
  shared_array(shared_array&& other) noexcept : block_(std::move(other.block_)), size_(std::exchange(other.size_, 0)) {}
  shared_array& operator=(shared_array&& other) noexcept {
    block_ = std::move(other.block_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }
  ~shared_array() = default;

  T* data() const noexcept { return block_ ? reinterpret_cast<T*>(block_->data()) : nullptr; }
  std::size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }
  T& operator[](std::size_t i) const noexcept { return data()[i]; }
  T* begin() const noexcept { return data(); }
  T* end() const noexcept { return data() + size_; }

 private:
  shared_array(std::shared_ptr<detail::array_block> block, std::size_t size) noexcept
      : block_(std::move(block)), size_(size) {}
  friend shared_array make_shared_array<T>(std::size_t size);
  template <class, detail::route>
  friend struct detail::codec;

  std::shared_ptr<detail::array_block> block_;
  std::size_t size_ = 0;
};

/// Makes an array of `size` elements, all zero bytes; anywhere, inside a task as well.
/// Errors   std::bad_array_new_length if so many cannot be addressed; std::system_error naming the system call if there
///          is no memory or no descriptor left. Running out of memory later, as elements are written, ends the process
///          as it does for any memory (SIGBUS or the OOM killer).
template <class T>
shared_array<T> make_shared_array(std::size_t size) {
  static_assert(std::is_trivially_copyable_v<T>,
                "procpool: the elements of a shared_array are seen by other processes as they lie in memory; use a "
                "trivially copyable element type, or a std::vector<T>");
  static_cast<void>(detail::check_transferable<T>());
  if (size == 0) return {};
  if (size > static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(T)) throw std::bad_array_new_length();
  return shared_array<T>(detail::array_block::create(size * sizeof(T)), size);
}

namespace detail {

template <class T>
struct codec<shared_array<T>, route::by_handle> {
  static_assert(check_transferable<T>());

  template <class Out>
  static void put(Out& out, const shared_array<T>& value) {
    out.bytes().put(value.block_ ? value.block_->identity() : std::uint64_t{0});
    out.bytes().put(static_cast<std::uint64_t>(value.size_));
    if (value.block_) out.bytes().attach(value.block_);
  }

  template <class In>
  static shared_array<T> get(In& in) {
    const auto identity = in.bytes().template get<std::uint64_t>();
    const auto size = in.bytes().template get<std::uint64_t>();
    if (size == 0) return {};
    attachment_source* const source = in.bytes().attachments();
    std::shared_ptr<array_block> block = source == nullptr ? nullptr : source->take(identity);
    if (!block) throw_unserializable<shared_array<T>>("decoding: the memory of a shared_array did not come with it");
    if (size > block->bytes() / sizeof(T)) {
      throw_unserializable<shared_array<T>>("decoding: a shared_array of " + std::to_string(size) + " elements in " +
                                            std::to_string(block->bytes()) + " bytes");
    }
    return shared_array<T>(std::move(block), static_cast<std::size_t>(size));
  }
};

}  // namespace detail
}  // namespace procpool
