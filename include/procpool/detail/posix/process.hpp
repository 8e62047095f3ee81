// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>

namespace procpool::detail {

/// getpid(2) at the price of a load: the number is kept in a page that the kernel hands to a forked child wiped
/// (`madvise(2)`, MADV_WIPEONFORK), so that it never survives a fork, however the fork was made.
class process_identity {
 public:
  static pid_t get() noexcept {
    static const process_identity instance;
    if (instance.page_ == nullptr) return ::getpid();
    pid_t pid = instance.page_->load(std::memory_order_relaxed);
    if (pid == 0) {
      pid = ::getpid();
      instance.page_->store(pid, std::memory_order_relaxed);
    }
    return pid;
  }

 private:
  process_identity() noexcept {
    const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    void* page = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return;
    if (::madvise(page, size, MADV_WIPEONFORK) != 0) {
      ::munmap(page, size);
      return;
    }
    page_ = static_cast<std::atomic<pid_t>*>(page);  // zero: the representation of an atomic 0
  }

  std::atomic<pid_t>* page_ = nullptr;
};

/// The id of this process.
inline pid_t current_process() noexcept { return process_identity::get(); }

}  // namespace procpool::detail
