// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>

namespace support {

/// Counters in memory of their own that this process and all that it forks later share, without anything of the
/// library. Made before the pool; tasks capture what in_task() returns.
class shared_words {
 public:
  using word = std::atomic<int>;
  static_assert(word::is_always_lock_free);

  explicit shared_words(std::size_t size) : size_(size) {
    void* at = ::mmap(nullptr, size * sizeof(word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) std::abort();
    words_ = static_cast<word*>(at);  // zero: the representation of an atomic 0
  }
  shared_words(const shared_words&) = delete;
  shared_words& operator=(const shared_words&) = delete;
  ~shared_words() { ::munmap(words_, size_ * sizeof(word)); }

  word* in_task() const { return words_; }
  word& operator[](std::size_t i) const { return words_[i]; }
  std::size_t size() const { return size_; }
  word* begin() const { return words_; }
  word* end() const { return words_ + size_; }

 private:
  word* words_ = nullptr;
  std::size_t size_;
};

}  // namespace support
