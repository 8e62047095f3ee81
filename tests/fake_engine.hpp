// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/error.hpp>

/// An engine without workers: elements wait until the test says how each ends, so that nothing depends on timing.
class fake_engine final : public procpool::detail::engine {
 public:
  struct entry {
    procpool::detail::job_ptr target;
    procpool::detail::arguments_ptr arguments;
    std::size_t offset = 0;
    std::size_t element = 0;
  };

  using engine::submit;
  void submit(std::span<procpool::detail::chunk> chunks, procpool::detail::afterwards) override {
    require_owned("submit");
    {
      const std::lock_guard lock(mutex_);
      if (closed_) throw procpool::detail::make_error<procpool::pool_closed>("the pool is closed");
      for (const procpool::detail::chunk& each : chunks) {
        chunk_sizes.push_back(each.count);
        for (std::size_t i = 0; i != each.count; ++i)
          waiting_.push_back({each.target, each.arguments, each.offset + i, each.first + i});
      }
    }
    if (on_submit) on_submit();
  }

  void withdraw(procpool::detail::job& target) noexcept override { cancel(target); }
  bool cancel(procpool::detail::job& target) noexcept override {
    return fail_all(procpool::detail::make_error<procpool::task_cancelled>("cancelled"), &target) != 0;
  }

  bool running(const procpool::detail::job& target) const noexcept override {
    const std::lock_guard lock(mutex_);
    return started_ && started_->target.get() == &target;
  }

  bool help() noexcept override {
    helped.fetch_add(1, std::memory_order_relaxed);
    return run_in_help.load() && run();
  }

  void close() noexcept override {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

  void terminate() noexcept override {
    close();
    fail_all(procpool::detail::make_error<procpool::pool_terminated>("terminated"), nullptr);
  }

  void join() override { callbacks().drain_and_stop(); }
  std::size_t processes() const noexcept override { return 2; }
  procpool::pool_stats stats() const override { return {}; }

  // ---- what a test does ----

  std::size_t waiting() const {
    const std::lock_guard lock(mutex_);
    return waiting_.size();
  }

  /// Takes the element that was submitted `index`-th of those that wait, as a worker does.
  std::optional<entry> take(std::size_t index = 0) noexcept {
    const std::lock_guard lock(mutex_);
    if (index >= waiting_.size()) return std::nullopt;
    entry taken = waiting_[index];
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(index));
    return taken;
  }

  /// Runs its code here, as a worker does, and settles it. False if there is no such element.
  bool run(std::size_t index = 0) noexcept {
    const std::optional<entry> taken = take(index);
    if (taken) run(*taken);
    return taken.has_value();
  }

  void run(const entry& which) noexcept {
    using namespace procpool::detail;
    heap_writer result;
    std::shared_ptr<void> kept;
    const std::size_t begin = which.arguments->begin_of(which.offset);
    byte_reader arguments(which.arguments->bytes.data() + begin, which.arguments->end_of(which.offset) - begin);
    call_frame frame{chunk{.target = which.target, .arguments = which.arguments}.callable(), arguments, result, kept};
    const reply_kind kind = which.target->code()(frame);
    byte_reader bytes(result.data(), result.size());
    reply how{.kind = kind, .bytes = &bytes, .stable = stable};
    settle(which, how);
  }

  void fail(const entry& which, std::exception_ptr error) noexcept {
    procpool::detail::reply how{.error = std::move(error)};
    settle(which, how);
  }

  void start(const entry& which) {
    const std::lock_guard lock(mutex_);
    started_ = which;
  }

  std::atomic<std::size_t> helped{0};     ///< how often help() was called
  std::atomic<bool> run_in_help{false};   ///< whether help() runs what waits
  std::atomic<std::size_t> completed{0};  ///< elements whose settle() said that they had completed
  bool stable = true;                     ///< how replies are marked
  std::function<void()> on_submit;
  std::vector<std::size_t> chunk_sizes;

 private:
  void settle(const entry& which, procpool::detail::reply& how) noexcept {
    if (which.target->settle(which.element, how)) ++completed;
  }

  template <class Error>
  std::size_t fail_all(const Error& error, const procpool::detail::job* target) noexcept {
    std::deque<entry> failed;
    {
      const std::lock_guard lock(mutex_);
      std::deque<entry> kept;
      for (entry& each : waiting_) (target == nullptr || each.target.get() == target ? failed : kept).push_back(each);
      waiting_ = std::move(kept);
    }
    for (const entry& each : failed) fail(each, std::make_exception_ptr(error));
    return failed.size();
  }

  mutable std::mutex mutex_;
  std::deque<entry> waiting_;
  std::optional<entry> started_;
  bool closed_ = false;
};
