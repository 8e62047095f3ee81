// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <memory>
#include <utility>

namespace procpool::detail {

/// Takes a share in something that must not be destroyed in this process; a leak detector still finds it.
inline void keep_for_ever(std::shared_ptr<const void> what) {
  struct node {
    std::shared_ptr<const void> kept;
    node* next;
  };
  static constinit std::atomic<node*> first{nullptr};
  auto* fresh = new node{std::move(what), first.load(std::memory_order_relaxed)};
  while (!first.compare_exchange_weak(fresh->next, fresh, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

}  // namespace procpool::detail
