// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/callback_thread.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/posix/futex.hpp>
#include <procpool/detail/small_lock.hpp>
#include <procpool/detail/waiting.hpp>
#include <procpool/error.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// Is told when a result is there.
class ready_observer {
 public:
  ready_observer(const ready_observer&) = delete;
  ready_observer& operator=(const ready_observer&) = delete;

  /// Called at most once, in the thread that settles the result, under the lock of its observers: does little, does
  /// not wait, and does not touch the result. The observer is out of the list by then and may end its life here.
  virtual void on_ready() noexcept = 0;

 protected:
  ready_observer() = default;
  ~ready_observer() = default;

 private:
  friend class future_state_base;
  ready_observer* next_ = nullptr;  // all guarded by the lock of the state that is observed
  ready_observer* previous_ = nullptr;
  bool listed_ = false;
};

/// What a future and the task behind it share, but for the value. Counted by those who hold it; whoever settles it
/// holds it until the call returns.
class future_state_base {
 public:
  explicit future_state_base(std::shared_ptr<engine> home) noexcept : home_(std::move(home)) {}
  future_state_base(const future_state_base&) = delete;
  future_state_base& operator=(const future_state_base&) = delete;

  void retain() noexcept { references_.fetch_add(1, std::memory_order_relaxed); }
  void release() noexcept {
    if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }

  engine& home() const noexcept { return *home_; }
  const std::shared_ptr<engine>& shared_home() const noexcept { return home_; }

  bool ready() const noexcept { return (status_.load(std::memory_order_acquire) & ended) != 0; }
  /// Whether it ended in a value.
  bool has_value() const noexcept { return (status_.load(std::memory_order_acquire) & phases) == in_value; }
  /// What it ended in, when ready; null for a value.
  std::exception_ptr error() const noexcept { return has_value() ? nullptr : error_; }

  /// The first outcome wins: false if there is one.
  bool set_error(std::exception_ptr error) noexcept {
    if (!claim()) return false;
    error_ = std::move(error);
    publish(in_error);
    return true;
  }

  /// Ends it with task_cancelled unless it has ended or its task runs; true if it did.
  virtual bool cancel() noexcept {
    return set_error(cancelled_error([] { return std::string("the task was cancelled"); }));
  }
  /// Whether its task has started and not ended.
  virtual bool running() const noexcept { return false; }

  /// Whether it comes of many elements, of which nobody waits for one more than for another.
  virtual bool together() const noexcept { return false; }
  /// For a wait inside a callback: runs what of the callback queue this result depends on, and nothing else. True if it
  /// ran something. Override where a result is settled by a callback_item.
  virtual bool assist() noexcept { return false; }
  /// For a wait inside a callback: whether this result is that callback's own, or depends on it.
  virtual bool awaits_this_thread() const noexcept { return false; }

  void wait() { wait_until(no_deadline); }

  /// Whether it is ready by then. Throws std::logic_error in a process that did not construct the pool.
  bool wait_until(steady_time deadline) {
    home_->require_owned("waiting for a result");
    if (ready()) return true;
    if (home_->callbacks().here()) return wait_inside_callback(deadline);
    look_ahead expected = home_->expected();
    expected.together = together();
    return help_until([this] { return ready(); }, [this] { return home_->help(); }, deadline,
                      [this, deadline] { sleep(deadline); }, [this](bool on) { home_->watch(on); },
                      [this, deadline](resting how) { return rest(how, deadline); }, expected);
  }

  /// False, and nothing done, if the result is there already.
  bool add_observer(ready_observer& observer) noexcept {
    const std::lock_guard lock(lock_);
    if ((marked(observed) & ended) != 0) return false;
    observer.listed_ = true;
    observer.previous_ = nullptr;
    observer.next_ = observers_;
    if (observers_ != nullptr) observers_->previous_ = &observer;
    observers_ = &observer;
    return true;
  }

  /// When it returns, on_ready() has returned or will not be called.
  void remove_observer(ready_observer& observer) noexcept {
    const std::lock_guard lock(lock_);
    if (observer.listed_) unlist(observer);
  }

 protected:
  virtual ~future_state_base() = default;

  void retain_unshared(std::uint32_t times) noexcept {
    references_.store(references_.load(std::memory_order_relaxed) + times, std::memory_order_relaxed);
  }

  // What status_ holds in its low bits. `claimed` keeps other outcomes out while one is moved in.
  static constexpr std::uint32_t pending = 0;
  static constexpr std::uint32_t claimed = 1;
  static constexpr std::uint32_t in_value = 2;
  static constexpr std::uint32_t in_error = 3;
  static constexpr std::uint32_t phases = 3;
  static constexpr std::uint32_t ended = 2;      // the bit that both outcomes have
  static constexpr std::uint32_t sleepers = 4;   // beside the phase: somebody sleeps on status_,
  static constexpr std::uint32_t leader = 8;     // or waits for this as the leader of home_,
  static constexpr std::uint32_t observed = 16;  // or has listed an observer

  /// True for the one caller that may store an outcome and then publishes it.
  bool claim() noexcept {
    std::uint32_t seen = status_.load(std::memory_order_relaxed);
    while ((seen & phases) == pending) {
      if (status_.compare_exchange_weak(seen, seen | claimed, std::memory_order_acquire, std::memory_order_relaxed))
        return true;
    }
    return false;
  }

  void publish(std::uint32_t phase) noexcept {
    const std::uint32_t before = status_.exchange(phase, std::memory_order_acq_rel);
    if ((before & sleepers) != 0) futex_wake(status_, futex_scope::process);
    if ((before & leader) != 0) home_->rouse();
    if ((before & observed) != 0) {
      const std::lock_guard lock(lock_);
      while (ready_observer* observer = observers_) {
        unlist(*observer);
        observer->on_ready();
      }
    }
    home_->callbacks().serve_if_stranded();
  }

  /// `text()` says what was cancelled. std::bad_alloc if there is no memory for the error.
  template <class Text>
  static std::exception_ptr cancelled_error(Text text) noexcept {
    try {
      return std::make_exception_ptr(make_error<task_cancelled>(text()));
    } catch (...) {
      return std::current_exception();
    }
  }

  std::exception_ptr error_{};  // written between claim() and publish()

 private:
  void unlist(ready_observer& observer) noexcept {
    observer.listed_ = false;
    (observer.previous_ != nullptr ? observer.previous_->next_ : observers_) = observer.next_;
    if (observer.next_ != nullptr) observer.next_->previous_ = observer.previous_;
  }

  /// Sets `mark` unless it has ended; what status_ is then.
  std::uint32_t marked(std::uint32_t mark) noexcept {
    std::uint32_t seen = status_.load(std::memory_order_acquire);
    while ((seen & ended) == 0 && (seen & mark) == 0) {
      if (status_.compare_exchange_weak(seen, seen | mark, std::memory_order_acq_rel, std::memory_order_acquire))
        seen |= mark;
    }
    return seen;
  }

  void sleep(steady_time deadline) noexcept {
    const std::uint32_t seen = marked(sleepers);
    if ((seen & ended) == 0) futex_wait(status_, seen, deadline, futex_scope::process);
  }

  /// As the leader, if it can be.
  bool rest(resting how, steady_time deadline) noexcept {
    constexpr std::chrono::microseconds moment{50};
    if (!home_->lead()) return false;
    if (how == resting::for_a_moment) deadline = std::min(deadline, std::chrono::steady_clock::now() + moment);
    const bool slept = (marked(leader) & ended) != 0 || home_->rest(how, deadline);
    status_.fetch_and(~leader, std::memory_order_relaxed);  // what it settles itself it need not be roused for
    home_->follow();
    return slept;
  }

  // What this result waits for may be queued on this very thread, or get there only later: sleep where both are heard.
  bool wait_inside_callback(steady_time deadline) {
    if (deadline == no_deadline && awaits_this_thread()) {
      throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur),
                              "procpool: a callback waits for its own result");
    }
    struct bell final : ready_observer {
      explicit bell(event_count& to) noexcept : events(to) {}
      void on_ready() noexcept override { events.notify(); }
      event_count& events;
    };
    event_count& events = home_->callbacks().events();
    bell on_end(events);
    if (!add_observer(on_end)) return true;
    std::uint32_t seen = events.now();
    const bool in_time = help_until([this] { return ready(); },
                                    [this, &events, &seen] {
                                      seen = events.now();
                                      return assist() || home_->help();
                                    },
                                    deadline, [&events, &seen, deadline] { events.wait(seen, deadline); },
                                    [this](bool on) { home_->watch(on); }, [](resting) { return false; });
    remove_observer(on_end);
    return in_time;
  }

  std::atomic<std::uint32_t> references_{0};
  std::atomic<std::uint32_t> status_{pending};
  const std::shared_ptr<engine> home_;
  ready_observer* observers_ = nullptr;  // guarded by lock_
  small_lock lock_;
};

inline void intrusive_ptr_add_ref(future_state_base* target) noexcept { target->retain(); }
inline void intrusive_ptr_release(future_state_base* target) noexcept { target->release(); }

/// The value, or the error, of one task or one call. Derived classes settle it.
template <class R>
class future_state : public future_state_base {
 public:
  explicit future_state(std::shared_ptr<engine> home) noexcept : future_state_base(std::move(home)) {}

  /// Constructs the value in place; what that throws becomes the error. The first outcome wins: false if there is one.
  template <class... Args>
    requires std::constructible_from<R, Args...>
  bool set_value(Args&&... args) noexcept {
    if (!claim()) return false;
    try {
      std::construct_at(std::addressof(value_), std::forward<Args>(args)...);
    } catch (...) {
      error_ = std::current_exception();
      publish(in_error);
      return true;
    }
    publish(in_value);
    return true;
  }

  bool set_outcome(outcome<R>&& result) noexcept {
    return result.has_value() ? set_value(std::move(result).value()) : set_error(result.error());
  }

  /// Once ready, once: the value, moved out, or the error, thrown.
  R take() {
    if (!has_value()) std::rethrow_exception(error_);
    return std::move(value_);
  }

 protected:
  ~future_state() override {
    if (has_value()) std::destroy_at(std::addressof(value_));
  }

 private:
  union {
    R value_;
  };
};

template <>
class future_state<void> : public future_state_base {
 public:
  using future_state_base::future_state_base;

  bool set_value() noexcept {
    if (!claim()) return false;
    publish(in_value);
    return true;
  }

  bool set_outcome(outcome<void>&& result) noexcept {
    return result.has_value() ? set_value() : set_error(result.error());
  }

  void take() {
    if (!has_value()) std::rethrow_exception(error_);
  }

 protected:
  ~future_state() override = default;
};

template <class R>
using future_state_ptr = boost::intrusive_ptr<future_state<R>>;

static_assert(sizeof(future_state_base) <= 72, "procpool: there is one per task");

}  // namespace procpool::detail
