// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <iterator>
#include <memory>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/shared_memory/attachments.hpp>
#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// The shared arrays in a worker: those that came for a few elements, until these are through, and those that it keeps,
/// mapped, until the parent lets them go.
class worker_arrays final : public attachment_source {
 public:
  worker_arrays(int socket, const request_half& requests)
      : requests_(requests), inbox_(socket), through_(requests.before_first) {
    struct rlimit limit{};
    stay_mapped_ = ::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
  }

  std::shared_ptr<array_block> take(std::uint64_t identity) override {
    std::shared_ptr<array_block> block = inbox_.find(identity);
    return block ? block : inbox_.take(identity);  // it may not have been received for want of memory
  }

  /// Whether something has come, or is to be let go. Sees what the parent told before it allowed the element that has been
  /// claimed, and, in protocol::sleep_unless(), before it woke this worker.
  bool news() const noexcept { return requests_.array_news.load(std::memory_order_relaxed) != heard_; }

  void hear() noexcept {
    heard_ = requests_.array_news.load(std::memory_order_acquire);  // before what it tells of is looked at
    inbox_.receive();
    inbox_.take_back(requests_.passing_arrays.load(std::memory_order_relaxed));  // raised before the last was sent
    inbox_.discard(through_);
    // What has come to be kept was in the table before it was sent.
    inbox_.let_go_unless([this](std::uint64_t identity) {
      return std::any_of(std::begin(requests_.kept_arrays), std::end(requests_.kept_arrays),
                         [identity](const auto& kept) { return kept.load(std::memory_order_relaxed) == identity; });
    });
  }

  /// A chunk begins. Where the address space is limited, all of it is its.
  void begin_chunk() noexcept {
    if (!stay_mapped_) inbox_.unmap();
  }

  /// Elements up to `number` are through.
  void discard(std::uint64_t number) noexcept { inbox_.discard(through_ = number); }

  /// No element comes any more.
  void clear() noexcept { inbox_.clear(); }

 private:
  const request_half& requests_;
  attachment_inbox inbox_;
  std::uint32_t heard_ = 0;
  std::uint64_t through_;  ///< the highest number that is
  bool stay_mapped_ = true;
};

}  // namespace procpool::detail
