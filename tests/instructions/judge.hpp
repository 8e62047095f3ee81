// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "parent_end.hpp"

namespace instructions {

/// Judges what the death of the stopped worker would leave: a copy of this process, and so an exact copy of all that
/// the parent knows, goes through the recovery, while the worker and the parent itself are none the wiser.
///
/// The verdict depends on nothing but the parent's private memory, the words of the reply half before its ring, the
/// bytes of the replies that were read, and the run counts. As long as none of these has changed, the last one holds.
class judge {
 public:
  explicit judge(parent_end& parent, const run_counts& counts) : parent_(parent), counts_(counts) {
    void* at = ::mmap(nullptr, sizeof(report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    report_ = new (at) report;
  }
  judge(const judge&) = delete;
  judge& operator=(const judge&) = delete;
  ~judge() { ::munmap(report_, sizeof(report)); }

  std::size_t judged() const noexcept { return judged_; }
  const parent_end::account& seen() const noexcept { return seen_; }

  /// The parent has done something: the last verdict says nothing any more.
  void parent_changed() noexcept { valid_ = false; }

  /// Whether anything has changed that a verdict depends on.
  bool is_due() const noexcept {
    if (!valid_) return true;
    return std::any_of(inputs_.begin(), inputs_.end(), [](const input& each) {
      return std::memcmp(each.bytes, each.copy.data(), each.copy.size()) != 0;
    });
  }

  /// Throws violation, with what the recovery found, unless all is as promised.
  void pass_verdict() {
    ++judged_;
    *report_ = report{};
    const pid_t child = ::fork();
    if (child < 0) throw std::system_error(errno, std::generic_category(), "fork");
    if (child == 0) recover_and_exit();
    int status = 0;
    if (::waitpid(child, &status, 0) != child) throw std::system_error(errno, std::generic_category(), "waitpid");
    if (!WIFEXITED(status)) throw violation("the parent dies of it: signal " + std::to_string(WTERMSIG(status)));
    if (WEXITSTATUS(status) != EXIT_SUCCESS) throw violation(report_->text);
    seen_.published += report_->found.published;
    seen_.lost += report_->found.lost;
    seen_.elsewhere += report_->found.elsewhere;
    remember_inputs();
  }

 private:
  struct extent {
    const std::byte* bytes;
    std::size_t size;
  };
  /// In memory shared with the copy.
  struct report {
    static constexpr std::size_t most = 64;

    char text[400] = {};
    parent_end::account found;
    std::uint64_t read_from = 0;  ///< positions in the reply ring
    std::uint64_t read_to = 0;
    std::size_t count = 0;  ///< of the blocks below
    extent blocks[most] = {};
  };
  struct input {
    const std::byte* bytes;
    std::vector<std::byte> copy;
  };

  // ---- in the copy ------------------------------------------------------------------------------------------------

  [[noreturn]] void recover_and_exit() noexcept {
    try {
      make_requests_private();
      request_half& requests = parent_.requests();
      report_->read_from = requests.taken_bytes.load();
      check_state();
      report_->found = parent_.recover([this](const std::byte* bytes, std::size_t size) {
        if (report_->count == report::most) throw violation("too many large replies at once for this test");
        report_->blocks[report_->count++] = {bytes, size};
      });
      report_->read_to = requests.taken_bytes.load();
      ::_exit(EXIT_SUCCESS);
    } catch (const std::exception& failure) {
      std::strncpy(report_->text, failure.what(), sizeof(report_->text) - 1);
    } catch (...) {
      std::strcpy(report_->text, "the recovery throws something");
    }
    ::_exit(EXIT_FAILURE);
  }

  /// What the recovery writes (`limit`, `wake`, positions, the bookkeeping of the arena) must not reach the worker.
  void make_requests_private() {
    auto* const half = reinterpret_cast<std::byte*>(&parent_.requests());
    make_private(half, lane_page);
    if (parent_.current() != nullptr && parent_.current()->uses_request_arena) {
      make_private(half + region_layout::request_arena, std::size_t{1} << 20);
    }
  }
  static void make_private(std::byte* begin, std::size_t size) {
    const std::vector<std::byte> kept(begin, begin + size);
    if (::mmap(begin, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
      throw std::bad_alloc();
    }
    std::memcpy(begin, kept.data(), size);
  }

  /// What the state of the worker says must have happened.
  void check_state() const {
    const run_count& initializer = counts_[run_counts::initializer];
    const run_count& finalizer = counts_[run_counts::finalizer];
    const lane_port& port = parent_.port;
    if (counts_[run_counts::nobody].entered.load() != 0) throw violation("a task ran with arguments that are no one's");
    if (const auto running = port.running(); running && *running == parent_.claimed) {
      const auto since = port.started(*running);
      if (since && (*since < parent_.claimed_at || *since > std::chrono::steady_clock::now())) {
        throw violation("number " + std::to_string(*running) + " is said to run since another one started");
      }
    }
    if (port.initialized() && initializer.finished.load() != 1)
      throw violation("ready before its initializer has ended");
    if (initializer.entered.load() > 1 || finalizer.entered.load() > 1)
      throw violation("initialized or finalized twice");
    if (finalizer.entered.load() != 0 && parent_.requests().leave.load() == 0)
      throw violation("leaves without being told");
    if (port.left() && finalizer.finished.load() != 1) throw violation("it has left, and its finalizer has not ended");
    if (port.left() && port.published(port.settled(), port.last()) != port.last()) {
      throw violation("it has left in good order, and not all has run");
    }
    if (const std::string failure = port.failure(); !failure.empty() && failure != initializer_failure()) {
      throw violation("the text of its failure is torn: " + failure);
    }
  }

  // ---- in the parent ----------------------------------------------------------------------------------------------

  void remember_inputs() {
    inputs_.clear();
    const auto* const half = reinterpret_cast<const std::byte*>(&parent_.replies());
    remember(half, offsetof(reply_half, ring));
    remember(reinterpret_cast<const std::byte*>(&counts_[0]), run_counts::first_element * sizeof(run_count));
    if (const message* const current = parent_.current()) {
      remember(reinterpret_cast<const std::byte*>(&counts_[current->first]), current->count() * sizeof(run_count));
    }
    for (std::uint64_t at = report_->read_from; at != report_->read_to;) {
      const std::size_t offset = at % ring_bytes;
      const std::size_t size = std::min<std::uint64_t>(report_->read_to - at, ring_bytes - offset);
      remember(half + offsetof(reply_half, ring) + offset, size);
      at += size;
    }
    // The header of a series may change as long as that is not read to its end.
    const std::size_t next = report_->read_to % ring_bytes;
    remember(half + offsetof(reply_half, ring) + next, std::min(sizeof(reply_header), ring_bytes - next));
    for (std::size_t i = 0; i != report_->count; ++i) remember(report_->blocks[i].bytes, report_->blocks[i].size);
    valid_ = true;
  }
  void remember(const std::byte* bytes, std::size_t size) {
    inputs_.push_back({bytes, std::vector<std::byte>(bytes, bytes + size)});
  }

 public:
  /// What the initializer throws that is to fail: long, so that it takes more than an instruction to write.
  static const std::string& initializer_failure() {
    static const std::string text = [] {
      std::string made = "the initializer fails: ";
      for (int i = 0; i != 200; ++i) made += std::to_string(i) + ' ';
      return made;
    }();
    return text;
  }

 private:
  parent_end& parent_;
  const run_counts& counts_;
  report* report_ = nullptr;
  std::vector<input> inputs_;
  bool valid_ = false;
  std::size_t judged_ = 0;
  parent_end::account seen_;
};

}  // namespace instructions
