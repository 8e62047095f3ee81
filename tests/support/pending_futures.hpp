// SPDX-License-Identifier: BSL-1.0
// What the tests of futures share: futures of a fake engine, and what they hold.
#pragma once

#include <atomic>
#include <coroutine>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include <procpool/future.hpp>

#include "fake_engine.hpp"

using procpool::future;
using procpool::detail::future_state;
using procpool::detail::future_state_ptr;
using procpool::detail::make_future;

template <class R>
future_state_ptr<R> new_state(const std::shared_ptr<fake_engine>& engine) {
  return future_state_ptr<R>(new future_state<R>(engine));
}

// A future and the end that settles it.
template <class R>
struct pending {
  explicit pending(const std::shared_ptr<fake_engine>& engine)
      : state(new_state<R>(engine)), result(make_future<R>(state)) {}
  future_state_ptr<R> state;
  future<R> result;
};

template <class R, class V>
future<R> ready_future(const std::shared_ptr<fake_engine>& engine, V&& value) {
  auto state = new_state<R>(engine);
  state->set_value(std::forward<V>(value));
  return make_future<R>(state);
}

template <class R>
future<R> failed_future(const std::shared_ptr<fake_engine>& engine, const std::string& what) {
  auto state = new_state<R>(engine);
  state->set_error(std::make_exception_ptr(std::runtime_error(what)));
  return make_future<R>(state);
}

// No default constructor, move-only, counts its living instances.
class fussy {
 public:
  explicit fussy(int value) : value_(value) { ++living; }
  fussy(fussy&& other) noexcept : value_(other.value_) { ++living; }
  fussy& operator=(fussy&&) = delete;
  ~fussy() { --living; }
  int value() const { return value_; }
  static inline std::atomic<int> living{0};

 private:
  int value_;
};

struct throws_when_moved {
  throws_when_moved() = default;
  throws_when_moved(throws_when_moved&&) { throw std::runtime_error("moved"); }
};

// A coroutine that starts at once and cleans up after itself.
struct detached {
  struct promise_type {
    detached get_return_object() noexcept { return {}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_never final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
};

// One that its holder destroys.
struct held {
  struct promise_type {
    held get_return_object() noexcept { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
    std::suspend_never initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() noexcept {}
    void unhandled_exception() noexcept { std::terminate(); }
  };
  std::coroutine_handle<promise_type> handle;
};
