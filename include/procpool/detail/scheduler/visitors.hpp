// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <mutex>

namespace procpool::detail {

/// Counts the threads that are inside of something that is not to be taken apart around them. Whoever has set `closing`
/// may wait on `changed`, under `mutex`, until there are none.
class visitors {
 public:
  visitors(const std::atomic<bool>& closing, std::mutex& mutex, std::condition_variable& changed) noexcept
      : closing_(closing), mutex_(mutex), changed_(changed) {}

  bool none() const noexcept { return count_.load() == 0; }

  /// One of them, while it lives.
  class visit {
   public:
    explicit visit(visitors& all) noexcept : all_(all) { all_.count_.fetch_add(1); }
    visit(const visit&) = delete;
    visit& operator=(const visit&) = delete;
    ~visit() {
      // Either this sees that it is closing, or whoever closes it sees that this one has left.
      if (all_.count_.fetch_sub(1) != 1 || !all_.closing_.load()) return;
      const std::lock_guard lock(all_.mutex_);
      all_.changed_.notify_all();
    }

   private:
    visitors& all_;
  };

 private:
  const std::atomic<bool>& closing_;
  std::mutex& mutex_;
  std::condition_variable& changed_;
  std::atomic<std::size_t> count_{0};
};

}  // namespace procpool::detail
