// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <atomic>
#include <coroutine>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <procpool/detail/future_state.hpp>

namespace procpool::detail {

/// What calling `Function` with the value of a future<R> returns, decayed.
template <class Function, class R>
struct continuation_result {
  using type = std::decay_t<std::invoke_result_t<Function, R>>;
};
template <class Function>
struct continuation_result<Function, void> {
  using type = std::decay_t<std::invoke_result_t<Function>>;
};
template <class Function, class R>
using continuation_result_t = typename continuation_result<Function, R>::type;

template <class Function, class R>
concept continues = (std::is_void_v<R> && std::invocable<Function>) || std::invocable<Function, R>;

template <class Function, class U>
concept recovers_to = std::invocable<Function, std::exception_ptr> &&
                      (std::is_void_v<U> || std::convertible_to<std::invoke_result_t<Function, std::exception_ptr>, U>);

/// Stands for on_error where there is none: the error passes on.
struct pass_error_on {};

/// The result of then(): settled on the callback thread by the callback that it holds. Between start() and the end of
/// run() it keeps itself alive, whether or not there is a future for it.
template <class R, class U, class OnValue, class OnError>
class then_state final : public future_state<U>, private ready_observer, private callback_item {
 public:
  template <class V, class E>
  then_state(future_state_ptr<R> source, V&& on_value, E&& on_error)
      : future_state<U>(source->shared_home()), source_(std::move(source)) {
    callbacks_.emplace(std::forward<V>(on_value), std::forward<E>(on_error));
  }

  void start() noexcept {
    this->retain();
    if (!source_->add_observer(*this)) this->home().callbacks().post(static_cast<callback_item&>(*this));
  }

  bool cancel() noexcept override {
    stage from = stage::waiting;
    return stage_.compare_exchange_strong(from, stage::dropped) && future_state<U>::cancel();
  }

  bool running() const noexcept override { return stage_.load() == stage::running && !this->ready(); }

  bool assist() noexcept override {
    if (!source_) return false;  // the callback is running further down this thread's stack
    return source_->ready() ? this->home().callbacks().run_now(*this) : source_->assist();
  }

  bool awaits_this_thread() const noexcept override {
    if (!source_) return !this->ready();
    return !source_->ready() && source_->awaits_this_thread();
  }

 private:
  enum class stage : std::uint8_t { waiting, running, dropped };
  struct callbacks {
    template <class V, class E>
    callbacks(V&& v, E&& e) : on_value(std::forward<V>(v)), on_error(std::forward<E>(e)) {}
    OnValue on_value;
    [[no_unique_address]] OnError on_error;
  };

  void on_ready() noexcept override { this->home().callbacks().enqueue(*this); }

  void run() noexcept override {
    const boost::intrusive_ptr<then_state> self(this, false);
    future_state_ptr<R> source = std::move(source_);
    stage from = stage::waiting;
    if (!stage_.compare_exchange_strong(from, stage::running)) {
      callbacks_.reset();
      return;
    }
    // The callbacks, and the value they were given, are gone before anybody learns of their result.
    outcome<U> result = call(*source);
    callbacks_.reset();
    source.reset();
    this->set_outcome(std::move(result));
  }

  outcome<U> call(future_state<R>& source) noexcept {
    try {
      if (!source.has_value()) {
        if constexpr (std::is_same_v<OnError, pass_error_on>) {
          return outcome<U>(boost::system::in_place_error, source.error());
        } else if constexpr (std::is_void_v<U>) {
          std::invoke(std::move(callbacks_->on_error), source.error());
          return {};
        } else {
          return outcome<U>(boost::system::in_place_value,
                            std::invoke(std::move(callbacks_->on_error), source.error()));
        }
      }
      const auto on_value = [&]() -> decltype(auto) {
        if constexpr (std::is_void_v<R>) {
          return std::invoke(std::move(callbacks_->on_value));
        } else {
          return std::invoke(std::move(callbacks_->on_value), source.take());
        }
      };
      if constexpr (std::is_void_v<U>) {
        on_value();
        return {};
      } else {
        return outcome<U>(boost::system::in_place_value, on_value());
      }
    } catch (...) {
      return outcome<U>(boost::system::in_place_error, std::current_exception());
    }
  }

  // After start(), used on the callback thread only.
  future_state_ptr<R> source_;
  std::optional<callbacks> callbacks_;
  std::atomic<stage> stage_{stage::waiting};
};

/// What co_await waits on; lives in the coroutine's frame, and so needs no memory of its own. A coroutine that is
/// destroyed while it waits is forgotten: the callback thread must not be about to resume it, as with any coroutine.
template <class R>
class future_awaiter final : private ready_observer, private callback_item {
 public:
  explicit future_awaiter(future_state_ptr<R> state) noexcept : state_(std::move(state)) {}

  ~future_awaiter() {
    if (!waiting_ || !state_->home().owned()) return;
    state_->remove_observer(*this);
    state_->home().callbacks().withdraw(*this);
  }

  bool await_ready() const noexcept { return false; }

  void await_suspend(std::coroutine_handle<> waiting) noexcept {
    waiting_ = waiting;
    const std::shared_ptr<engine> home = state_->shared_home();
    // From here on the coroutine may be running already, or have ended: nothing of *this is touched.
    if (!state_->add_observer(*this)) home->callbacks().post(static_cast<callback_item&>(*this));
  }

  R await_resume() {
    const future_state_ptr<R> state = std::move(state_);
    return state->take();
  }

 private:
  void on_ready() noexcept override { state_->home().callbacks().enqueue(*this); }
  void run() noexcept override { std::exchange(waiting_, {}).resume(); }

  future_state_ptr<R> state_;
  std::coroutine_handle<> waiting_{};
};

}  // namespace procpool::detail
