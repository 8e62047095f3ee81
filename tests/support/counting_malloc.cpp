// SPDX-License-Identifier: BSL-1.0
#include "support/counting_malloc.hpp"

#include <atomic>
#include <cstdlib>

#include "support/replaced_new.hpp"

namespace {

std::atomic<bool> counting{false};
std::atomic<std::size_t> made{0};

void count() noexcept {
  if (counting.load(std::memory_order_relaxed)) made.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

// What the program itself calls malloc and aligned_alloc, its operator new included, comes here (ld(1), --wrap).
extern "C" {
void* __real_malloc(std::size_t size);
void* __real_aligned_alloc(std::size_t alignment, std::size_t size);

void* __wrap_malloc(std::size_t size) {
  count();
  return __real_malloc(size);
}
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t size) {
  count();
  return __real_aligned_alloc(alignment, size);
}
}

bool support::may_allocate() noexcept { return true; }

void support::count_allocations(bool whether) noexcept { counting.store(whether); }
std::size_t support::allocations() noexcept { return made.load(); }
