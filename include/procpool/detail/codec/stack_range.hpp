// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>

#if defined(__SANITIZE_ADDRESS__)
#define PROCPOOL_DETAIL_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PROCPOOL_DETAIL_ASAN 1
#endif
#endif
#if defined(PROCPOOL_DETAIL_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace procpool::detail {

/// The live part of the calling thread's stack: from the frame of the caller, above which lies every object that it can
/// refer to, to the end that the thread started at (`pthread_getattr_np(3)`, right for the growing stack of the main
/// thread too). Empty where it cannot be told.
class stack_range {
 public:
  static const stack_range& of_this_thread() noexcept {
    static thread_local const stack_range range;
    return range;
  }

  [[gnu::noinline]] bool contains(std::uintptr_t address) const noexcept {
    if (address < end_ && address >= reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0))) return true;
#if defined(PROCPOOL_DETAIL_ASAN)
    // The sanitizer may keep local variables elsewhere.
    void* const fake = __asan_get_current_fake_stack();
    return fake != nullptr &&
           __asan_addr_is_in_fake_stack(fake, reinterpret_cast<void*>(address), nullptr, nullptr) != nullptr;
#else
    return false;
#endif
  }

 private:
  stack_range() noexcept {
    pthread_attr_t attributes;
    if (::pthread_getattr_np(::pthread_self(), &attributes) != 0) return;
    void* begin = nullptr;
    std::size_t size = 0;
    if (::pthread_attr_getstack(&attributes, &begin, &size) == 0) {
      end_ = reinterpret_cast<std::uintptr_t>(begin) + size;
    }
    ::pthread_attr_destroy(&attributes);
  }

  std::uintptr_t end_ = 0;
};

}  // namespace procpool::detail
