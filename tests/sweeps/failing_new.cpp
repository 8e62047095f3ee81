// SPDX-License-Identifier: BSL-1.0
// Any allocation of the program can be made to fail.
#include "failing_new.hpp"

#include <pthread.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>

#include "support/replaced_new.hpp"

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

}  // namespace

bool support::may_allocate() noexcept { return !fails(); }

void sweeps::count_forks() {
  ::pthread_atfork(nullptr, nullptr, [] {
    depth.fetch_add(1, std::memory_order_relaxed);
    made.store(0, std::memory_order_relaxed);
  });
}
