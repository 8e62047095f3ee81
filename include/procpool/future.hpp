// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <exception>
#include <future>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/continuation.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/future_set.hpp>
#include <procpool/detail/future_state.hpp>
#include <procpool/detail/pull_iterator.hpp>
#include <procpool/error.hpp>

namespace procpool {

template <class R>
class future;
template <class R>
class completed_futures;

namespace detail {

template <class R>
class completion_core;

/// The key to what is inside a future.
struct future_access {
  template <class R>
  static future<R> make(future_state_ptr<R> state) noexcept {
    return future<R>(std::move(state));
  }
  template <class R>
  static completed_futures<R> completed(std::unique_ptr<completion_core<R>> core) noexcept {
    return completed_futures<R>(std::move(core));
  }
  /// Throws std::future_error if there is none.
  template <class R>
  static future_state<R>& state(const future<R>& of) {
    return of.required();
  }
};

template <class R>
future<R> make_future(future_state_ptr<R> state) noexcept {
  return future_access::make(std::move(state));
}

}  // namespace detail

/// The result of a task that was submitted, once it is there. Like `std::future`, and can do more: `cancel`, `then`,
/// `co_await`. May outlive its pool. The destructor does not wait and does not cancel: the task runs all the same.
///
/// In a process other than the one that constructed the pool, what waits or cancels throws `std::logic_error`.
/// On a future that is not `valid()`, what is not noexcept throws `std::future_error` (no_state).
/// Callbacks and coroutines run on the pool's callback thread, one after the other. One that waits for a result does
/// not keep that result from getting ready; waiting there for its own, or for what depends on that, throws
/// `std::system_error` (resource_deadlock_would_occur).
template <class R>
class future {
 public:
  using result_type = R;

  future() noexcept = default;
  future(future&&) noexcept = default;
  future& operator=(future&&) noexcept = default;
  ~future() = default;

  /// Whether it has a result, or will have; not after `get()`, `then()`, `co_await` and a move.
  bool valid() const noexcept { return state_ != nullptr; }

  /// Waits; gives the value away, or throws what the task ended in. `valid()` is false afterwards.
  R get() {
    required().wait();
    return take();
  }

  /// As get(), but throws `timeout_error` if there is no result after `timeout`, and then stays valid.
  template <class Rep, class Period>
  R get(std::chrono::duration<Rep, Period> timeout) {
    if (!required().wait_until(detail::deadline_after(timeout)))
      throw detail::make_error<timeout_error>("get: the result was not ready in time");
    return take();
  }

  void wait() const { required().wait(); }

  template <class Rep, class Period>
  std::future_status wait_for(std::chrono::duration<Rep, Period> timeout) const {
    return required().wait_until(detail::deadline_after(timeout)) ? std::future_status::ready
                                                                  : std::future_status::timeout;
  }

  template <class Clock, class Duration>
  std::future_status wait_until(std::chrono::time_point<Clock, Duration> when) const {
    detail::future_state<R>& state = required();
    // The clock may be set while this waits: timeout is what it says in the end.
    for (;;) {
      if (state.wait_until(detail::deadline_at(when))) return std::future_status::ready;
      if (Clock::now() >= when) return std::future_status::timeout;
    }
  }

  /// Whether get() would return, or throw, at once.
  bool ready() const noexcept { return state_ && state_->ready(); }

  /// Whether the task ended in a value. Errors   `std::logic_error` while it has not ended.
  bool successful() const {
    detail::future_state<R>& state = required();
    if (!state.ready()) throw std::logic_error("procpool: successful: the task has not ended");
    return state.has_value();
  }

  /// Whether a worker has started the task and it has not ended.
  bool running() const noexcept { return state_ && state_->running(); }

  /// True: it is cancelled now, and `get()` throws `task_cancelled`. If it has not started it never will; if it runs,
  /// its worker is killed, after the grace it was given (`call_options`), which this does not wait for. False if it had
  /// ended already.
  bool cancel() {
    detail::future_state<R>& state = required();
    state.home().require_owned("cancel");
    return state.cancel();
  }

  /// Whether the task ended by `cancel()`.
  bool cancelled() const noexcept {
    if (!state_ || !state_->ready() || state_->has_value()) return false;
    try {
      std::rethrow_exception(state_->error());
    } catch (const task_cancelled&) {
      return true;
    } catch (...) {
      return false;
    }
  }

  /// Calls `on_value` with the value, once it is there, on the pool's callback thread; the future returned has what
  /// that returns, decayed, or throws. An error of this future passes on to it uncalled.
  /// The callback runs whether or not that future is kept, unless that is cancelled before.
  template <class OnValue>
    requires detail::continues<std::decay_t<OnValue>, R>
  auto then(OnValue&& on_value) && -> future<detail::continuation_result_t<std::decay_t<OnValue>, R>> {
    return std::move(*this).attach(std::forward<OnValue>(on_value), detail::pass_error_on{});
  }

  /// As above; an error of this future goes to `on_error`, as a `std::exception_ptr`, and what that returns is the
  /// value of the future returned. It does not see what `on_value` throws.
  template <class OnValue, class OnError>
    requires detail::continues<std::decay_t<OnValue>, R> &&
             detail::recovers_to<std::decay_t<OnError>, detail::continuation_result_t<std::decay_t<OnValue>, R>>
  auto then(OnValue&& on_value,
            OnError&& on_error) && -> future<detail::continuation_result_t<std::decay_t<OnValue>, R>> {
    return std::move(*this).attach(std::forward<OnValue>(on_value), std::forward<OnError>(on_error));
  }

  /// `co_await std::move(future)` is get() for coroutines; they go on on the pool's callback thread, always.
  auto operator co_await() && {
    required().home().require_owned("co_await");
    return detail::future_awaiter<R>(std::move(state_));
  }

 private:
  friend struct detail::future_access;
  explicit future(detail::future_state_ptr<R> state) noexcept : state_(std::move(state)) {}

  detail::future_state<R>& required() const {
    if (!state_) throw std::future_error(std::future_errc::no_state);
    return *state_;
  }

  R take() {
    const detail::future_state_ptr<R> state = std::move(state_);
    return state->take();
  }

  template <class OnValue, class OnError>
  auto attach(OnValue&& on_value, OnError&& on_error) && {
    using U = detail::continuation_result_t<std::decay_t<OnValue>, R>;
    using next_state = detail::then_state<R, U, std::decay_t<OnValue>, std::decay_t<OnError>>;
    required().home().require_owned("then");
    boost::intrusive_ptr<next_state> next(
        new next_state(state_, std::forward<OnValue>(on_value), std::forward<OnError>(on_error)));
    state_.reset();
    next->start();
    return detail::make_future<U>(std::move(next));
  }

  detail::future_state_ptr<R> state_;
};

namespace detail {

template <class T>
inline constexpr bool is_future = false;
template <class R>
inline constexpr bool is_future<future<R>> = true;

template <class Range>
concept range_of_futures = std::ranges::input_range<Range> && is_future<std::ranges::range_value_t<Range>>;

}  // namespace detail

namespace detail {

template <class R>
class completion_core {
 public:
  using value_type = future<R>;

  void add(future<R> each) {
    boost::intrusive_ptr<future_state_base> state(&future_access::state(each));
    futures_.push_back(std::move(each));
    set_.add(std::move(state));
  }

  future<R>& current() noexcept {
    seen_ = true;
    return current_;
  }
  bool ended() const noexcept { return ended_; }

  void settle_on_current() {
    if (seen_) advance();
  }

  void advance() {
    const std::size_t number = set_.next(no_deadline, "as_completed");
    ended_ = number == future_set::none;
    current_ = ended_ ? future<R>() : std::move(futures_[number]);
    seen_ = false;
  }

  std::optional<future<R>> next() {
    settle_on_current();
    if (ended_) return std::nullopt;
    seen_ = true;
    return std::move(current_);
  }

 private:
  std::vector<future<R>> futures_;
  future_set set_;
  future<R> current_;
  bool seen_ = true;  // current_ was looked at or given away, or there was none yet
  bool ended_ = false;
};

}  // namespace detail

/// What `as_completed` returns: a move-only input range, and a view, of futures that are ready when they come.
/// Waits inside `begin()`, `++` and `next()`. `begin()` goes on behind what was looked at. Futures that were not taken
/// are dropped with it, which neither waits nor cancels.
template <class R>
class completed_futures : public std::ranges::view_base {
 public:
  using iterator = detail::pull_iterator<detail::completion_core<R>>;

  iterator begin() {
    core_->settle_on_current();
    return iterator(*core_);
  }
  std::default_sentinel_t end() const noexcept { return {}; }

  /// The next future to be ready; empty at the end.
  std::optional<future<R>> next() { return core_->next(); }

 private:
  friend struct detail::future_access;
  explicit completed_futures(std::unique_ptr<detail::completion_core<R>> core) noexcept : core_(std::move(core)) {}

  std::unique_ptr<detail::completion_core<R>> core_;
};

/// The futures in the order in which they get ready: those that are ready already first, in their order in `futures`.
/// Takes them out of the range, which must be an rvalue.
/// Errors   `std::future_error` (no_state) if one is not valid.
template <detail::range_of_futures Range>
  requires(!std::is_lvalue_reference_v<Range>)
auto as_completed(Range&& futures) {
  using R = typename std::ranges::range_value_t<Range>::result_type;
  auto core = std::make_unique<detail::completion_core<R>>();
  const auto end = std::ranges::end(futures);
  for (auto it = std::ranges::begin(futures); it != end; ++it) core->add(std::ranges::iter_move(it));
  return detail::future_access::completed<R>(std::move(core));
}

/// Waits until one of the futures is ready: an iterator to the one that was first; `end()` if there are none.
/// Errors   `std::future_error` (no_state) if one is not valid.
template <detail::range_of_futures Range>
  requires std::ranges::forward_range<Range>
std::ranges::borrowed_iterator_t<Range> wait_any(Range&& futures) {
  detail::future_set set;
  for (const auto& each : futures)
    set.add(boost::intrusive_ptr<detail::future_state_base>(&detail::future_access::state(each)));
  auto it = std::ranges::begin(futures);
  if (set.left() == 0) return it;
  std::ranges::advance(it, static_cast<std::ptrdiff_t>(set.next(detail::no_deadline, "wait_any")));
  return it;
}

/// Waits until all of the futures are ready.
/// Errors   `std::future_error` (no_state) if one is not valid.
template <detail::range_of_futures Range>
void wait_all(Range&& futures) {
  for (const auto& each : futures) each.wait();
}

}  // namespace procpool
