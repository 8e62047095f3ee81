// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <procpool/detail/scheduler/worker_set.hpp>

namespace procpool::detail {

/// The workers that have something to run, for threads that look at the lanes without the scheduler's mutex: what a look
/// costs does not grow with those that have nothing. A worker may be in it for longer; it is not missing for whoever has
/// posted something to it.
class busy_workers {
 public:
  explicit busy_workers(std::size_t workers) : words_(workers / worker_set::bits + 1) {}

  /// Under the scheduler's mutex, as erase().
  void insert(std::size_t i) noexcept { change(i, word_of(i) | worker_set::bit(i)); }
  void erase(std::size_t i) noexcept { change(i, word_of(i) & ~worker_set::bit(i)); }

  /// By any thread; in ascending order.
  template <class Visit>
  void for_each(Visit visit) const {
    for (std::size_t word = 0; word != words_.size(); ++word)
      worker_set::visit_word(words_[word].load(std::memory_order_relaxed), word * worker_set::bits, visit);
  }

 private:
  std::uint64_t word_of(std::size_t i) const noexcept {
    return words_[i / worker_set::bits].load(std::memory_order_relaxed);
  }
  void change(std::size_t i, std::uint64_t word) noexcept {
    words_[i / worker_set::bits].store(word, std::memory_order_relaxed);
  }

  std::vector<std::atomic<std::uint64_t>> words_;
};

}  // namespace procpool::detail
