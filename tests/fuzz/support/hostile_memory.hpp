// SPDX-License-Identifier: BSL-1.0
// Memory that changes while it is read. Every load of the code under test, and every copy it makes, calls one of the
// functions at the end (-fsanitize-coverage=trace-loads; --wrap=__asan_memcpy, --wrap=__asan_memmove), so a change can
// be made to happen just before any of them: what a thread of a hostile worker could do at any time, at a time that the
// input says, and so the same in each run. Included by one source file of a program.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include "input.hpp"

#define FUZZ_NOT_TRACED __attribute__((no_sanitize("coverage", "address", "undefined")))

namespace fuzz {

class hostile_memory {
 public:
  FUZZ_NOT_TRACED static hostile_memory& instance() noexcept {
    static constinit hostile_memory only;
    return only;
  }

  /// From now on these bytes are watched while `watching` objects live.
  void place(void* begin, std::size_t size) {
    begin_ = reinterpret_cast<std::uintptr_t>(begin);
    size_ = size;
    changes_.clear();
    fetches_ = 0;
  }

  /// Just before the `fetch`-th fetch from now on, the bytes at `offset` become the lowest `width` bytes of `value`.
  void change_at(std::uint64_t fetch, std::size_t offset, std::uint64_t value, std::size_t width) {
    changes_.push_back({fetches_ + fetch, offset, value, width});
  }
  std::uint64_t changes_made() const noexcept { return changes_made_; }
  void forget_changes() noexcept { changes_.clear(); }

  /// While it lives, fetches count. Code of the harness runs outside of it.
  class watching {
   public:
    watching() noexcept { ++instance().watched_; }
    watching(const watching&) = delete;
    watching& operator=(const watching&) = delete;
    ~watching() { --instance().watched_; }
  };

  /// While it lives, no byte among the first max_counted may be fetched twice.
  class each_byte_once {
   public:
    each_byte_once() {
      hostile_memory& memory = instance();
      memory.counts_ = true;
      for (const span& each : memory.fetched_) std::memset(memory.seen_ + each.offset, 0, each.size);
      memory.fetched_.clear();
    }
    each_byte_once(const each_byte_once&) = delete;
    each_byte_once& operator=(const each_byte_once&) = delete;
    ~each_byte_once() { instance().counts_ = false; }
  };

  /// Its own loads are not traced, or it would call itself.
  FUZZ_NOT_TRACED void fetch(std::uintptr_t address, std::size_t size) {
    if (watched_ == 0 || address - begin_ >= size_) return;
    ++fetches_;
    const std::size_t offset = address - begin_;
    if (counts_) count(offset, size);
    if (!changes_.empty()) change();
  }

  static constexpr std::size_t max_counted = 512 * 1024;

 private:
  struct change_later {
    std::uint64_t fetch;
    std::size_t offset;
    std::uint64_t value;
    std::size_t width;
  };
  struct span {
    std::size_t offset;
    std::size_t size;
  };

  void count(std::size_t offset, std::size_t size) {
    if (offset >= max_counted) return;
    if (size > max_counted - offset) size = max_counted - offset;
    require(std::memchr(seen_ + offset, 1, size) == nullptr, "a byte of a stranger was fetched twice");
    std::memset(seen_ + offset, 1, size);
    fetched_.push_back({offset, size});
  }

  void change() {
    for (std::size_t i = 0; i != changes_.size();) {
      const change_later due = changes_[i];
      if (due.fetch > fetches_) {
        ++i;
        continue;
      }
      std::memcpy(reinterpret_cast<void*>(begin_ + due.offset), &due.value, due.width);
      ++changes_made_;
      changes_[i] = changes_.back();
      changes_.pop_back();
    }
  }

  std::uintptr_t begin_ = 0;
  std::size_t size_ = 0;
  int watched_ = 0;
  bool counts_ = false;
  std::uint64_t fetches_ = 0;
  std::uint64_t changes_made_ = 0;
  std::vector<change_later> changes_;
  std::vector<span> fetched_;
  unsigned char seen_[max_counted]{};
};

}  // namespace fuzz

// ---- what the compiler calls ---------------------------------------------------------------------------------------

extern "C" {
#define FUZZ_LOAD(size)                                                                        \
  FUZZ_NOT_TRACED void __sanitizer_cov_load##size(void* address) {                             \
    fuzz::hostile_memory::instance().fetch(reinterpret_cast<std::uintptr_t>(address), (size)); \
  }
FUZZ_LOAD(1)
FUZZ_LOAD(2)
FUZZ_LOAD(4)
FUZZ_LOAD(8)
FUZZ_LOAD(16)
#undef FUZZ_LOAD

void* __real___asan_memcpy(void* to, const void* from, std::size_t size);
void* __real___asan_memmove(void* to, const void* from, std::size_t size);
FUZZ_NOT_TRACED void* __wrap___asan_memcpy(void* to, const void* from, std::size_t size) {
  if (size != 0) fuzz::hostile_memory::instance().fetch(reinterpret_cast<std::uintptr_t>(from), size);
  return __real___asan_memcpy(to, from, size);
}
FUZZ_NOT_TRACED void* __wrap___asan_memmove(void* to, const void* from, std::size_t size) {
  if (size != 0) fuzz::hostile_memory::instance().fetch(reinterpret_cast<std::uintptr_t>(from), size);
  return __real___asan_memmove(to, from, size);
}
}
