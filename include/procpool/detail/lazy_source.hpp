// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/job.hpp>

namespace procpool::detail {

/// What came of asking a lazy_source for its next input.
struct pulled {
  enum class kind {
    element,      ///< the arguments have been written
    unencodable,  ///< there was an input, but `error` came up when its arguments were to be written
    end,          ///< there are no more; not asked again
  };

  kind what = kind::end;
  std::exception_ptr error{};
};

/// Where a lazy range has its tasks from: the callable, and the inputs, one at a time. Used, and destroyed, by the
/// thread that iterates over the results.
template <class R>
class lazy_source {
 public:
  lazy_source(const lazy_source&) = delete;
  lazy_source& operator=(const lazy_source&) = delete;
  virtual ~lazy_source() = default;

  /// Takes the next input and writes its arguments; what it wrote before `unencodable` is dropped.
  /// Throws what the input range throws, and is not asked again then.
  virtual pulled pull_next(byte_writer& arguments) = 0;

  task_code code() const noexcept { return code_; }
  std::uint32_t series_size() const noexcept { return series_size_; }
  std::size_t together() const noexcept { return together_; }
  const char* operation() const noexcept { return operation_; }

  /// The encoded callable; complete before the range is made.
  heap_writer callable;

 protected:
  /// `series_size`: as that of a parted_job. `together`: so many inputs cost little more than one to send and to run.
  lazy_source(task_code run, const char* called, std::uint32_t series_size = 0, std::size_t together = 1) noexcept
      : code_(run), series_size_(series_size), together_(together), operation_(called) {}

 private:
  const task_code code_;
  const std::uint32_t series_size_;
  const std::size_t together_;
  const char* const operation_;
};

/// How a lazy range goes about it.
struct lazy_options {
  std::size_t buffersize = 0;  ///< inputs taken and not yet yielded; 0: a small multiple of processes × chunksize
  std::size_t chunksize = 1;   ///< inputs that travel together; cut to buffersize
  bool ordered = true;         ///< yield in the order of the inputs, else in the order of completion
  std::function<void(std::size_t done, std::size_t total)> progress{};
  task_limits limits{};
};

}  // namespace procpool::detail
