// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/value.hpp>
#include <procpool/detail/event_count.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/settle.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// What a lazy range yields for tasks that return R.
template <class R>
using lazy_element = std::conditional_t<std::is_void_v<R>, std::monostate, R>;

/// The tasks of a lazy range as the engine sees them, and the results that wait for their reader. One job for the whole
/// range; its elements are numbered as the inputs are. Outlives the range while tasks of it run.
template <class R>
class lazy_job final : public parted_job {
 public:
  lazy_job(task_code run, const char* called, bool ordered) : parted_job(run, called, 0), ordered_(ordered) {}

  void retain() noexcept override { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept override {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  bool settle(std::size_t element, reply& how) noexcept override {
    if (abandoned_.load(std::memory_order_relaxed)) return how.is_value();
    outcome<R> ended = read_reply<R>(*this, element, how);
    const bool completed = ended.has_value();
    store(element, std::move(ended));
    return completed;
  }

  std::size_t settle_series(std::size_t first, std::size_t count, const std::byte* values,
                            std::size_t size) noexcept override {
    if constexpr (!std::is_void_v<R>) {
      if constexpr (any_bytes_do<R>) {
        if (size == sizeof(R) && !abandoned_.load(std::memory_order_relaxed)) {
          {
            const std::lock_guard lock(mutex_);
            for (std::size_t i = 0; i != count; ++i) {
              byte_reader bytes(values + i * size, size);
              place_of(first + i).emplace(boost::system::in_place_value, decode<R>(bytes));
              ++done_;
            }
          }
          events.notify();
          return count;
        }
      }
    }
    return parted_job::settle_series(first, count, values, size);
  }

  // ---- the reader's side: one thread at a time ----

  /// Makes room for the results of the next `count` inputs, before they are submitted: settle() must not need memory.
  void expect(std::size_t count) {
    const std::lock_guard lock(mutex_);
    slots_.resize(slots_.size() + count);
  }
  /// Takes back the last expect(): they were refused.
  void unexpect(std::size_t count) noexcept {
    const std::lock_guard lock(mutex_);
    slots_.resize(slots_.size() - count);
  }
  void fail(std::size_t element, std::exception_ptr error) noexcept {
    store(element, outcome<R>(boost::system::in_place_error, std::move(error)));
  }

  /// The next result to yield, or nothing if it is not there yet.
  std::optional<outcome<lazy_element<R>>> pop() {
    const std::lock_guard lock(mutex_);
    if (slots_.empty() || !slots_.front()) return std::nullopt;
    std::optional<outcome<lazy_element<R>>> front = std::move(slots_.front());
    slots_.pop_front();
    ++popped_;
    return front;
  }
  bool front_is_there() noexcept {
    const std::lock_guard lock(mutex_);
    return !slots_.empty() && slots_.front().has_value();
  }
  /// How many elements have ended.
  std::size_t done() noexcept {
    const std::lock_guard lock(mutex_);
    return done_;
  }
  /// Nobody reads any more: results are dropped as they come.
  void abandon() noexcept { abandoned_.store(true, std::memory_order_relaxed); }

  event_count events;  ///< notified when an element has ended

 private:
  using slot = std::optional<outcome<lazy_element<R>>>;

  ~lazy_job() = default;

  void store(std::size_t element, outcome<R>&& ended) noexcept {
    {
      const std::lock_guard lock(mutex_);
      slot& target = place_of(element);
      try {
        put(target, std::move(ended));
      } catch (...) {  // from the value's move constructor
        target.emplace(boost::system::in_place_error, std::current_exception());
      }
      ++done_;
    }
    events.notify();
  }

  /// Both orders read the slots from the front: what differs is which one a result goes into.
  slot& place_of(std::size_t element) noexcept { return slots_[(ordered_ ? element : done_) - popped_]; }

  static void put(slot& target, outcome<R>&& ended) {
    if constexpr (!std::is_void_v<R>) {
      target.emplace(std::move(ended));
    } else if (ended.has_value()) {
      target.emplace(boost::system::in_place_value, std::monostate());
    } else {
      target.emplace(boost::system::in_place_error, ended.error());
    }
  }

  const bool ordered_;
  std::atomic<std::size_t> references_{0};
  std::atomic<bool> abandoned_{false};
  std::mutex mutex_;        // guards what follows
  std::deque<slot> slots_;  // one per element that was taken and not yet yielded
  std::size_t popped_ = 0;
  std::size_t done_ = 0;
};

}  // namespace procpool::detail
