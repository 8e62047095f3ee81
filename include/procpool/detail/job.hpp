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
  value = 1,           ///< the bytes are the encoded result
  exception = 2,       ///< the bytes are the encoded exception that the task threw
  unserializable = 3,  ///< the bytes are the encoded serialization_error of an argument or of the result
  skipped = 4,         ///< not run: an element of the job before it had failed
  out_of_memory = 5,   ///< ran; its result found no room in the lane
  series = 6,          ///< the bytes are the results of several elements, which all ended in a value
};

/// Where the code of a task puts the results of elements that it runs in one go, all of them of one size.
class result_series {
 public:
  std::byte* result = nullptr;  ///< of the element that runs

  /// That result is in place: its element has ended. True if the next one is to be run now.
  virtual bool go_on() = 0;

 protected:
  ~result_series() = default;
};

/// What the code of a task is handed to run one element.
struct call_frame {
  byte_reader callable;             ///< over the encoded callable, from its start
  byte_reader& arguments;           ///< over this element's arguments; of a series, over those behind it, too
  byte_writer& result;              ///< empty; takes the result or what stands for it
  std::shared_ptr<void>& kept;      ///< what the code keeps from one element of a chunk to the next; null at the first
  result_series* series = nullptr;  ///< not null: to run elements until this says so; only what does not end in a value
                                    ///< goes to `result`. Of code with a series_size only
};

/// The code of a task: one function template instantiation per callable and argument types.
using task_code = reply_kind (*)(call_frame&);

/// How one element ended, as its job learns it: a worker's reply, or an error of the pool.
struct reply {
  reply_kind kind{};           ///< meaningful when `error` is null
  byte_reader* bytes{};        ///< the worker's bytes: shared memory unless `stable`; good during settle() only
  bool stable{};               ///< the bytes lie in private memory and cannot change
  std::exception_ptr error{};  ///< worker_crashed, task_cancelled, pool_terminated, …: there is no worker's reply

  bool is_value() const noexcept { return !error && kind == reply_kind::value; }
};

/// What the caller allows each element of a job.
struct task_limits {
  std::chrono::nanoseconds timeout{0};  ///< longest run of one element; 0: any
  std::chrono::nanoseconds grace{0};    ///< from being asked to stop to being killed
  unsigned retries = 0;                 ///< more runs after one whose worker died
};

/// One submission: the code for one element or more, and where their outcomes go.
class job {
 public:
  job(task_code what, const char* operation_name) noexcept : code_(what), operation_(operation_name) {}
  job(const job&) = delete;
  job& operator=(const job&) = delete;

  virtual void retain() noexcept = 0;
  virtual void release() noexcept = 0;

  /// How an element ended: called exactly once for each element that was submitted, in any thread, with no lock of
  /// the engine held. Returns true if the element counts as completed (it ended in a value that could be decoded).
  virtual bool settle(std::size_t element, reply& how) noexcept = 0;

  /// The same for `count` elements from `first` on that ended in values, the bytes of which lie one behind the other,
  /// `size` bytes each, in memory that may change. Returns how many count as completed.
  virtual std::size_t settle_series(std::size_t first, std::size_t count, const std::byte* values,
                                    std::size_t size) noexcept {
    std::size_t completed = 0;
    for (std::size_t i = 0; i != count; ++i) {
      byte_reader bytes(values + i * size, size);
      reply how{reply_kind::value, &bytes, false, nullptr};
      if (settle(first + i, how)) ++completed;
    }
    return completed;
  }

  /// "map: task 17 of 200", for the texts of errors.
  virtual std::string place(std::size_t) const { return operation_; }

  task_code code() const noexcept { return code_; }
  /// The member that was called ("map"), for error texts.
  const char* operation() const noexcept { return operation_; }

  /// Filled before the job is submitted, then constant.
  [[no_unique_address]] task_limits limits;
  /// Elements behind a failed one that have not started are not run, but settled as skipped. Of a parted_job only.
  bool stop_on_failure = false;

 protected:
  ~job() = default;

 private:
  const task_code code_;
  const char* const operation_;
};

inline void intrusive_ptr_add_ref(job* target) noexcept { target->retain(); }
inline void intrusive_ptr_release(job* target) noexcept { target->release(); }
using job_ptr = boost::intrusive_ptr<job>;

/// A job of any number of elements, which travel in any number of chunks.
class parted_job : public job {
 public:
  static constexpr std::size_t none = std::numeric_limits<std::size_t>::max();

  parted_job(task_code what, const char* operation_name, std::size_t element_count) noexcept
      : job(what, operation_name), total_(element_count) {}

  /// The encoded callable, sent once per chunk. Filled before the job is submitted, then constant.
  heap_writer callable;
  /// Nobody waits for one element more than for another: they are told of when a chunk of them has ended.
  bool awaited_together = false;
  /// call<…>::series_size: the size of each result, in bytes, where elements may be run in one go; or 0.
  std::uint32_t series_size = 0;

  /// Unlike that of any other such job of this process; not 0.
  std::uint64_t serial() const noexcept { return serial_; }
  /// How many elements there will be; 0 while unknown.
  std::size_t total() const noexcept { return total_; }

  /// The lowest element that has failed; `none` while all is well.
  std::size_t first_failed() const noexcept { return first_failed_.load(std::memory_order_acquire); }
  void failed(std::size_t element) noexcept {
    std::size_t seen = first_failed_.load(std::memory_order_relaxed);
    while (element < seen && !first_failed_.compare_exchange_weak(seen, element, std::memory_order_acq_rel)) {
    }
  }

  std::string place(std::size_t element) const final {
    std::string text = operation();
    if (total_ != 1) {
      text += ": task " + std::to_string(element);
      if (total_ != 0) text += " of " + std::to_string(total_);
    }
    return text;
  }

 protected:
  ~parted_job() = default;

 private:
  static std::uint64_t next_serial() noexcept {
    static constinit std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
  }

  const std::uint64_t serial_ = next_serial();
  const std::size_t total_;
  std::atomic<std::size_t> first_failed_{none};
};

/// The encoded arguments of the one element of a call, behind its encoded callable: a part of the job. Or those of
/// consecutive elements of a parted_job (`inputs`). In memory that the parent alone writes.
class encoded_arguments {
 public:
  encoded_arguments(const encoded_arguments&) = delete;
  encoded_arguments& operator=(const encoded_arguments&) = delete;

  virtual void retain() noexcept = 0;
  virtual void release() noexcept = 0;

  heap_writer bytes;

  bool of_call() const noexcept { return callable_size_ != apart; }
  std::size_t callable_size() const noexcept { return of_call() ? callable_size_ : 0; }

  /// Where the bytes of element `i` are.
  std::size_t begin_of(std::size_t i) const noexcept { return i == 0 ? callable_size() : end_of(i - 1); }
  std::size_t end_of(std::size_t i) const noexcept { return of_call() ? bytes.size() : end_in_block(i); }
  /// The attachments of element `i` are those from attachments_begin(i) up to attachments_begin(i + 1).
  std::size_t attachments_begin(std::size_t i) const noexcept {
    if (i == 0) return 0;
    return of_call() ? bytes.attachments().size() : attachments_end_in_block(i - 1);
  }
  /// All elements have the same size, and if they are several there are no attachments.
  bool uniform() const noexcept { return of_call() || uniform_block(); }

 protected:
  static constexpr std::size_t apart = std::numeric_limits<std::size_t>::max();

  /// `callable_size`: `apart` if *this is a block of inputs.
  explicit encoded_arguments(std::size_t callable_size) noexcept : callable_size_(callable_size) {}
  ~encoded_arguments() = default;

  std::size_t callable_size_;

 private:
  virtual std::size_t end_in_block(std::size_t) const noexcept { return 0; }
  virtual std::size_t attachments_end_in_block(std::size_t) const noexcept { return 0; }
  virtual bool uniform_block() const noexcept { return true; }
};

/// The encoded arguments of consecutive elements of a parted_job. Counted by its chunks.
class inputs final : public encoded_arguments {
 public:
  inputs() noexcept : encoded_arguments(apart) {}

  void retain() noexcept override { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept override {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  /// Call after an element's arguments have been written.
  void end_element() {
    const std::size_t size = bytes.size() - begin_of(count_);
    if (count_ == 0) stride_ = size;
    if (!ends_ && (size != stride_ || !bytes.attachments().empty())) {
      auto ends = std::make_unique<std::vector<mark>>();
      for (std::size_t i = 0; i != count_; ++i) ends->push_back({end_of(i), 0});
      ends_ = std::move(ends);
    }
    if (ends_) ends_->push_back({bytes.size(), bytes.attachments().size()});
    ++count_;
  }
  /// The same for `n` elements of `size` bytes each, where all there are are of that size.
  void end_elements(std::size_t n, std::size_t size) noexcept {
    stride_ = size;
    count_ += n;
  }
  std::size_t count() const noexcept { return count_; }

 private:
  struct mark {
    std::size_t bytes;
    std::size_t attachments;
  };

  std::size_t end_in_block(std::size_t i) const noexcept override {
    return ends_ ? (*ends_)[i].bytes : (i + 1) * stride_;
  }
  std::size_t attachments_end_in_block(std::size_t i) const noexcept override {
    return ends_ ? (*ends_)[i].attachments : 0;
  }
  bool uniform_block() const noexcept override { return !ends_; }

  std::size_t count_ = 0;
  std::size_t stride_ = 0;
  std::unique_ptr<std::vector<mark>> ends_;  ///< one for each element, unless all have the same size and no attachments
  std::atomic<std::size_t> references_{0};
};

inline void intrusive_ptr_add_ref(encoded_arguments* target) noexcept { target->retain(); }
inline void intrusive_ptr_release(encoded_arguments* target) noexcept { target->release(); }
using arguments_ptr = boost::intrusive_ptr<encoded_arguments>;
using inputs_ptr = boost::intrusive_ptr<inputs>;

/// Consecutive elements of one job that travel together: `count` elements, the first of which is element `first` of
/// the job and element `offset` of `arguments`. How a job is cut into chunks is never observable.
struct chunk {
  static constexpr int any_lane = -1;

  job_ptr target{};
  arguments_ptr arguments{};
  std::size_t offset = 0;
  std::size_t first = 0;
  std::size_t count = 0;
  int lane = any_lane;  ///< the one worker that may run it (broadcast)
  unsigned deaths = 0;  ///< workers that have died running it

  /// The job, if it is not a single call.
  const parted_job* parted() const noexcept {
    return arguments->of_call() ? nullptr : static_cast<const parted_job*>(target.get());
  }

  /// Where the encoded callable lies.
  byte_reader callable(attachment_source* attachments = nullptr) const noexcept {
    if (const parted_job* const whole = parted()) return {whole->callable.data(), whole->callable.size(), attachments};
    return {arguments->bytes.data(), arguments->callable_size(), attachments};
  }

  /// Whether it is not to be run, as an element before it has failed.
  bool skipped() const noexcept { return target->stop_on_failure && first > parted()->first_failed(); }

  /// Cuts the elements from the `keep`-th on off this chunk and returns them.
  chunk split(std::size_t keep) {
    chunk rest{target, arguments, offset + keep, first + keep, count - keep, lane, deaths};
    count = keep;
    return rest;
  }
};

}  // namespace procpool::detail
