// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/codec/bytes.hpp>

namespace procpool::detail {

/// How the run of one element ended, as the worker reports it. The values travel.
enum class reply_kind : std::uint8_t {
  value = 1,            ///< the bytes are the encoded result
  exception = 2,        ///< the bytes are the encoded exception that the task threw
  unserializable = 3,   ///< the bytes are the encoded serialization_error of an argument or of the result
  skipped = 4,          ///< not run: an element of the job before it had failed
  out_of_memory = 5,    ///< ran; its result found no room in the lane
};

/// What the code of a task is handed to run one element.
struct call_frame {
  byte_reader callable;         ///< over the encoded callable, from its start
  byte_reader& arguments;       ///< over this element's arguments
  byte_writer& result;          ///< empty; takes the result or what stands for it
  std::shared_ptr<void>& kept;  ///< what the code keeps from one element of a chunk to the next; null at the first
};

/// The code of a task: one function template instantiation per callable and argument types.
using task_code = reply_kind (*)(call_frame&);

/// How one element ended, as its job learns it: a worker's reply, or an error of the pool.
struct reply {
  reply_kind kind{};            ///< meaningful when `error` is null
  byte_reader* bytes{};         ///< the worker's bytes: shared memory unless `stable`; good during settle() only
  bool stable{};                ///< the bytes lie in private memory and cannot change
  std::exception_ptr error{};   ///< worker_crashed, task_cancelled, pool_terminated, …: there is no worker's reply

  bool is_value() const noexcept { return !error && kind == reply_kind::value; }
};

/// What the caller allows each element of a job.
struct task_limits {
  std::chrono::nanoseconds timeout{0};  ///< longest run of one element; 0: any
  std::chrono::nanoseconds grace{0};    ///< from being asked to stop to being killed
  unsigned retries = 0;                 ///< more runs after one whose worker died
};

/// One submission: the code for some elements, and where their outcomes go.
class job {
 public:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

  job(task_code what, const char* operation_name, std::size_t element_count) noexcept
      : code_(what), operation_(operation_name), total_(element_count) {}
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  virtual void retain() noexcept = 0;
  virtual void release() noexcept = 0;

  /// How an element ended: called exactly once for each element that was submitted, in any thread, with no lock of
  /// the engine held. Returns true if the element counts as completed (it ended in a value that could be decoded).
  virtual bool settle(std::size_t element, reply& how) noexcept = 0;

  task_code code() const noexcept { return code_; }
  /// Unlike that of any other job of this process.
  std::uint64_t serial() const noexcept { return serial_; }
  /// The member that was called ("map"), for error texts.
  const char* operation() const noexcept { return operation_; }
  /// How many elements there will be; 0 while unknown.
  std::size_t total() const noexcept { return total_; }

  /// The encoded callable, if it is not beside the arguments (inputs::end_callable()); else null.
  virtual const heap_writer* callable_apart() const noexcept { return nullptr; }

  /// Filled before the job is submitted, then constant.
  task_limits limits;
  /// Elements behind a failed one that have not started are not run, but settled as skipped.
  bool stop_on_failure = false;

  /// The lowest element that has failed; `none` while all is well.
  std::size_t first_failed() const noexcept { return first_failed_.load(std::memory_order_acquire); }
  bool skips(std::size_t element) const noexcept { return stop_on_failure && element > first_failed(); }
  void failed(std::size_t element) noexcept {
    std::size_t seen = first_failed_.load(std::memory_order_relaxed);
    while (element < seen && !first_failed_.compare_exchange_weak(seen, element, std::memory_order_acq_rel)) {
    }
  }

  /// "map: task 17 of 200", for the texts of errors.
  std::string place(std::size_t element) const {
    std::string text = operation_;
    if (total_ != 1) {
      text += ": task " + std::to_string(element);
      if (total_ != 0) text += " of " + std::to_string(total_);
    }
    return text;
  }

 protected:
  ~job() = default;

 private:
  static std::uint64_t next_serial() noexcept {
    static constinit std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  const std::uint64_t serial_ = next_serial();
  const task_code code_;
  const char* const operation_;
  const std::size_t total_;
  std::atomic<std::size_t> first_failed_{none};
};

inline void intrusive_ptr_add_ref(job* target) noexcept { target->retain(); }
inline void intrusive_ptr_release(job* target) noexcept { target->release(); }
using job_ptr = boost::intrusive_ptr<job>;

/// A job whose elements travel in any number of chunks.
class parted_job : public job {
 public:
  using job::job;

  /// The encoded callable, sent once per chunk. Filled before the job is submitted, then constant.
  heap_writer callable;
  const heap_writer* callable_apart() const noexcept final { return &callable; }

 protected:
  ~parted_job() = default;
};

/// The encoded arguments of consecutive elements of a job, in private memory.
struct inputs {
 public:
  inputs() = default;
  /// A part of that job, which lives as long as anybody holds either.
  explicit inputs(job& whole) noexcept : whole_(&whole) {}

  heap_writer bytes;

  /// What has been written so far is the callable of a job that has no other arguments than these.
  void end_callable() noexcept { callable_size_ = bytes.size(); }
  std::size_t callable_size() const noexcept { return callable_size_; }

  /// Call after an element's arguments have been written.
  void end_element() {
    const std::size_t size = bytes.size() - end_of_last();
    if (count_ == 0) stride_ = size;
    if (!ends_ && (size != stride_ || !bytes.attachments().empty())) {
      auto ends = std::make_unique<std::vector<mark>>();
      for (std::size_t i = 0; i != count_; ++i) ends->push_back({end_of(i), 0});
      ends_ = std::move(ends);
    }
    if (ends_) ends_->push_back({bytes.size(), bytes.attachments().size()});
    ++count_;
  }

  std::size_t count() const noexcept { return count_; }
  std::size_t begin_of(std::size_t i) const noexcept { return i == 0 ? callable_size_ : end_of(i - 1); }
  std::size_t end_of(std::size_t i) const noexcept {
    return ends_ ? (*ends_)[i].bytes : callable_size_ + (i + 1) * stride_;
  }
  /// The attachments of element `i` are those from attachments_begin(i) up to attachments_begin(i + 1).
  std::size_t attachments_begin(std::size_t i) const noexcept {
    return !ends_ || i == 0 ? 0 : (*ends_)[i - 1].attachments;
  }
  /// All elements have the same size, and there are no attachments.
  bool uniform() const noexcept { return !ends_; }

  void retain() noexcept {
    if (whole_ != nullptr) return whole_->retain();
    references_.fetch_add(1, std::memory_order_relaxed);
  }
  void release() noexcept {
    if (whole_ != nullptr) return whole_->release();
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

 private:
  struct mark {
    std::size_t bytes;
    std::size_t attachments;
  };

  std::size_t end_of_last() const noexcept { return begin_of(count_); }

  std::size_t callable_size_ = 0;
  std::size_t count_ = 0;
  std::size_t stride_ = 0;
  std::unique_ptr<std::vector<mark>> ends_;  ///< one for each element, unless uniform
  job* const whole_ = nullptr;
  std::atomic<std::size_t> references_{0};  ///< unless it is a part of a job
};

inline void intrusive_ptr_add_ref(inputs* target) noexcept { target->retain(); }
inline void intrusive_ptr_release(inputs* target) noexcept { target->release(); }
using inputs_ptr = boost::intrusive_ptr<inputs>;

/// Consecutive elements of one job that travel together: `count` elements, the first of which is element `first` of
/// the job and element `offset` of `arguments`. How a job is cut into chunks is never observable.
struct chunk {
  static constexpr int any_lane = -1;

  job_ptr target{};
  inputs_ptr arguments{};
  std::size_t offset = 0;
  std::size_t first = 0;
  std::size_t count = 0;
  int lane = any_lane;   ///< the one worker that may run it (broadcast)
  unsigned deaths = 0;  ///< workers that have died running it

  /// Where the encoded callable lies.
  byte_reader callable(attachment_source* attachments = nullptr) const noexcept {
    if (const heap_writer* const apart = target->callable_apart()) return {apart->data(), apart->size(), attachments};
    return {arguments->bytes.data(), arguments->callable_size(), attachments};
  }

  /// Cuts the elements from the `keep`-th on off this chunk and returns them.
  chunk split(std::size_t keep) {
    chunk rest{target, arguments, offset + keep, first + keep, count - keep, lane, deaths};
    count = keep;
    return rest;
  }
};

}  // namespace procpool::detail
