// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sanitizer/allocator_interface.h>

#include <algorithm>
#include <cstddef>

namespace fuzz {

/// What is allocated while it lives, by all of the process. At most one at a time.
class allocations {
 public:
  allocations() noexcept {
    static const int installed = __sanitizer_install_malloc_and_free_hooks(&allocated, &freed);
    static_cast<void>(installed);
    current_ = this;
  }
  allocations(const allocations&) = delete;
  allocations& operator=(const allocations&) = delete;
  ~allocations() { current_ = nullptr; }

  void stop() noexcept { current_ = nullptr; }
  std::size_t largest() const noexcept { return largest_; }
  /// The most that was allocated at any time and not freed, beyond what there was when it began.
  std::size_t most() const noexcept { return static_cast<std::size_t>(std::max<std::ptrdiff_t>(most_, 0)); }

 private:
  static void allocated(const volatile void*, std::size_t size) {
    if (current_ == nullptr) return;
    current_->largest_ = std::max(current_->largest_, size);
    current_->now_ += static_cast<std::ptrdiff_t>(size);
    current_->most_ = std::max(current_->most_, current_->now_);
  }
  static void freed(const volatile void* block) {
    if (current_ == nullptr || block == nullptr) return;
    const auto* const address = const_cast<const void*>(block);
    current_->now_ -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(address));
  }

  static inline allocations* current_ = nullptr;
  std::size_t largest_ = 0;
  std::ptrdiff_t now_ = 0;
  std::ptrdiff_t most_ = 0;
};

}  // namespace fuzz
