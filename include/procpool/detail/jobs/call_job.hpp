// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/future_state.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/settle.hpp>
#include <procpool/detail/slab_allocated.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// Where a call_job<R> lies: in a slab, unless R is large, or aligned like few.
struct outside_slabs {};
template <class R, class Job>
consteval auto place_of_call() {
  if constexpr (std::is_void_v<R>) {
    return std::type_identity<slab_allocated<Job>>();
  } else if constexpr (sizeof(R) <= 128 && alignof(R) <= alignof(std::max_align_t)) {
    return std::type_identity<slab_allocated<Job>>();
  } else {
    return std::type_identity<outside_slabs>();
  }
}

/// One call, with all that it is made of, and the future of its result. `bytes` are filled before it is submitted: the
/// callable, then the arguments.
template <class R>
class call_job final : public future_state<R>,
                       public job,
                       public encoded_arguments,
                       public decltype(place_of_call<R, call_job<R>>())::type {
 public:
  /// With one reference.
  call_job(std::shared_ptr<engine> home, task_code run_by, const char* called)
      : future_state<R>(std::move(home)), job(run_by, called), encoded_arguments(0) {
    this->retain_unshared(1);
  }

  /// As often retain(), while no other thread knows of it: without what that costs where others may count, too.
  void retain_unshared(std::uint32_t times) noexcept { future_state<R>::retain_unshared(times); }

  /// What has been written so far is the callable.
  void end_callable() noexcept { callable_size_ = bytes.size(); }

  void retain() noexcept override { future_state<R>::retain(); }
  void release() noexcept override { future_state<R>::release(); }

  bool settle(std::size_t element, reply& how) noexcept override {
    bytes.leave_large_memory();       // no worker needs them any more, and the future may outlive the engine's memory
    if (this->ready()) return false;  // cancelled
    outcome<R> got = read_reply<R>(*this, element, how);
    const bool value = got.has_value();
    return this->set_outcome(std::move(got)) && value;
  }

  bool cancel() noexcept override {
    if (!this->set_error(this->cancelled_error([this] { return place(0) + ": cancelled"; }))) return false;
    this->home().cancel(*this);
    return true;
  }
  bool running() const noexcept override { return !this->ready() && this->home().running(*this); }

 private:
  friend void intrusive_ptr_add_ref(call_job* target) noexcept { target->retain(); }
  friend void intrusive_ptr_release(call_job* target) noexcept { target->release(); }
};

static_assert(sizeof(call_job<int>) <= 184, "procpool: there is one for each task that waits");

}  // namespace procpool::detail
