// SPDX-License-Identifier: BSL-1.0
// Every `operator new` of the program, so that any can be made to fail. In a file of its own, where no compiler sees both
// an allocation and what it calls.
#include "failing_new.hpp"

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int> depth{0};  // how often this process's line has forked: 0 in the parent, 1 in a zygote, 2 in a worker
std::atomic<long> made{0};  // allocations of this process

bool fails() noexcept {
  const auto& plan = sweeps::what_fails;
  if (!plan.armed || depth.load(std::memory_order_relaxed) != static_cast<int>(plan.where)) return false;
  const long number = made.fetch_add(1, std::memory_order_relaxed) + 1;
  if (number < plan.number || number - plan.number >= plan.in_a_row) return false;
  if (plan.once) {
    pid_t nobody = 0;
    const pid_t self = ::getpid();
    if (!sweeps::failed->chosen.compare_exchange_strong(nobody, self) && nobody != self) return false;
  }
  sweeps::failed->count.fetch_add(1);
  return true;
}

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (fails()) return nullptr;
  size = std::max<std::size_t>(size, 1);
  return alignment <= __STDCPP_DEFAULT_NEW_ALIGNMENT__
             ? std::malloc(size)
             : std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

}  // namespace

void sweeps::count_forks() {
  ::pthread_atfork(nullptr, nullptr, [] {
    depth.fetch_add(1, std::memory_order_relaxed);
    made.store(0, std::memory_order_relaxed);
  });
}

void* operator new(std::size_t size) {
  if (void* const got = allocate(size, 1)) return got;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  if (void* const got = allocate(size, static_cast<std::size_t>(alignment))) return got;
  throw std::bad_alloc();
}
void* operator new[](std::size_t size) { return ::operator new(size); }
void* operator new[](std::size_t size, std::align_val_t alignment) { return ::operator new(size, alignment); }
void* operator new(std::size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept { return allocate(size, 1); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
