// SPDX-License-Identifier: BSL-1.0
#pragma once

// Every `operator new` of the program, each of which asks support::may_allocate() first. For one file of a program that has
// that function and no code of its own that allocates: no compiler is to see both an allocation and what it calls.

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace support {

/// False: this allocation is to fail.
bool may_allocate() noexcept;

inline void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (!may_allocate()) return nullptr;
  size = std::max<std::size_t>(size, 1);
  return alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
             ? std::malloc(size)
             : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

}  // namespace support

void* operator new(std::size_t size) {
  if (void* const got = support::allocate(size, 1)) return got;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (void* const got = support::allocate(size, static_cast<std::size_t>(alignment))) return got;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return ::operator new(size); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return ::operator new(size, alignment); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return support::allocate(size, 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return support::allocate(size, 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
