// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>
#include <utility>

#include <procpool/detail/callback_thread.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/future_state.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/settle.hpp>
#include <procpool/error.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// Several elements, and the one future of what `Collector` makes of them. It is ready when every element has ended
/// (or it was cancelled), and then, unless the collector keeps errors, in the error of the lowest failed element: what
/// a serial loop would have thrown.
template <class Collector>
class batch_job final : public future_state<typename Collector::result>, public parted_job, callback_item {
  using state = future_state<typename Collector::result>;
  using element_type = typename Collector::element;

 public:
  using result_type = typename Collector::result;
  using progress_function = std::function<void(std::size_t done, std::size_t total)>;

  batch_job(std::shared_ptr<engine> home, task_code run_by, const char* called, std::size_t total,
            progress_function progress)
      : state(std::move(home)), parted_job(run_by, called, total), collector_(total), progress_(std::move(progress)) {}

  void retain() noexcept override { state::retain(); }
  void release() noexcept override { state::release(); }

  bool settle(std::size_t element, reply& how) noexcept override {
    bool completed = false;
    if (how.error || how.kind != reply_kind::skipped) {
      outcome<element_type> got = read_reply<element_type>(*this, element, how);
      completed = got.has_value();
      if (how.error) note_over(how.error);
      keep(element, std::move(got));
    }
    end_elements(1);
    return completed;
  }

  std::size_t settle_series(std::size_t first, std::size_t count, const std::byte* values,
                            std::size_t size) noexcept override {
    if constexpr (requires { collector_.put_bytes(first, count, values); }) {
      if (size == sizeof(element_type)) {
        collector_.put_bytes(first, count, values);
        end_elements(count);
        return count;
      }
    }
    return parted_job::settle_series(first, count, values, size);
  }

  /// The outcome of an element that was never submitted, because its arguments cannot be encoded.
  void refuse(std::size_t element, std::exception_ptr why) noexcept {
    keep(element, outcome<element_type>(boost::system::in_place_error, std::move(why)));
    end_elements(1);
  }

  /// A batch of no elements: there is none whose end would make the future ready.
  void settle_empty() noexcept { finish(); }

  bool cancel() noexcept override {
    if (!this->home().cancel(*this)) return false;
    cancelled_.store(true, std::memory_order_release);
    // What runs is not waited for, but for a call of progress_: report() finishes behind it.
    if (!progress_ || claim_reporting()) finish();
    return true;
  }
  bool running() const noexcept override { return !this->ready() && this->home().running(*this); }
  bool together() const noexcept override { return awaited_together; }
  bool assist() noexcept override { return progress_ && this->home().callbacks().run_now(*this); }

 private:
  friend void intrusive_ptr_add_ref(batch_job* target) noexcept { target->retain(); }
  friend void intrusive_ptr_release(batch_job* target) noexcept { target->release(); }

  void keep(std::size_t element, outcome<element_type>&& got) noexcept {
    try {
      if (Collector::keeps_errors || got) {
        collector_.put(element, std::move(got));
      } else {
        note_failure(element, std::move(got).error());
      }
    } catch (...) {  // the value's move constructor
      note_failure(element, std::current_exception());
    }
  }

  void note_failure(std::size_t element, std::exception_ptr error) noexcept {
    failed(element);
    const std::lock_guard lock(mutex_);
    if (element < failed_element_) {
      failed_element_ = element;
      failure_ = std::move(error);
    }
  }

  /// After cancel() and terminate() there are no more calls of progress_; and a cancelled batch ends as cancelled,
  /// whatever else has failed.
  void note_over(const std::exception_ptr& error) noexcept {
    if (cancelled_.load(std::memory_order_relaxed) || terminated_.load(std::memory_order_relaxed)) return;
    try {
      std::rethrow_exception(error);
    } catch (const task_cancelled&) {
      cancelled_.store(true, std::memory_order_release);
    } catch (const pool_terminated&) {
      terminated_.store(true, std::memory_order_release);
    } catch (...) {
    }
  }
  bool over() const noexcept {
    return cancelled_.load(std::memory_order_acquire) || terminated_.load(std::memory_order_acquire);
  }

  void end_elements(std::size_t n) noexcept {
    // Releases what the elements left in collector_ and failure_ to whoever sees the last one.
    const std::size_t done = ended_.fetch_add(n, std::memory_order_acq_rel) + n;
    const bool last = done == total();
    if (last && (!progress_ || (over() && claim_reporting()))) {
      finish();
    } else if (progress_ && !report_due_.exchange(true, std::memory_order_acq_rel)) {
      retain();
      this->home().callbacks().post(*this);
    }
  }

  void run() noexcept override {
    // From here on *this is in no queue. Who finds report_due_ false posts it again; what came before is seen below.
    report_due_.exchange(false, std::memory_order_acq_rel);
    report();
    release();
  }

  /// On the callback thread: tells progress_ how far the batch is, as often as it finds it further; then finishes.
  void report() noexcept {
    while (claim_reporting()) {
      const std::size_t done = ended_.load(std::memory_order_acquire);
      const bool news = done != reported_;
      if (news && !over() && !progress_error_) {
        try {
          progress_(done, total());
        } catch (...) {
          progress_error_ = std::current_exception();
        }
      }
      reported_ = done;
      if (done == total() || cancelled_.load(std::memory_order_acquire)) return finish();
      reporting_.store(false, std::memory_order_release);
      if (!news) return;
    }
  }

  /// False if the batch has finished, or a call of progress_ is under way: on the callback thread, or below on this
  /// stack if progress_ waits for something. report() looks again when it has returned.
  bool claim_reporting() noexcept { return !reporting_.exchange(true, std::memory_order_acq_rel); }

  void finish() noexcept {
    if (finished_.exchange(true, std::memory_order_acq_rel)) return;
    if (cancelled_.load(std::memory_order_acquire)) {
      this->set_error(this->cancelled_error(
          [this] { return std::string(operation()) + ": cancelled before all of its tasks had ended"; }));
    } else if (failure_ || progress_error_) {
      this->set_error(failure_ ? std::move(failure_) : std::move(progress_error_));
    } else {
      try {
        if constexpr (std::is_void_v<result_type>) {
          this->set_value();
        } else {
          this->set_value(collector_.take());
        }
      } catch (...) {
        this->set_error(std::current_exception());
      }
    }
  }

  Collector collector_;
  std::atomic<std::size_t> ended_{0};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> terminated_{false};
  std::atomic<bool> finished_{false};

  std::mutex mutex_;
  std::size_t failed_element_ = none;
  std::exception_ptr failure_;

  const progress_function progress_;
  std::atomic<bool> report_due_{false};  ///< run() is queued
  std::atomic<bool> reporting_{false};   ///< whoever set it may use the two below; stays set once finished
  std::size_t reported_ = 0;
  std::exception_ptr progress_error_;
};

}  // namespace procpool::detail
