// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/types.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <utility>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/event_count.hpp>
#include <procpool/detail/posix/process.hpp>

namespace procpool::detail {

/// One call that the callback thread has to make. The owner keeps it alive until run() begins or withdraw() has
/// returned; queueing it allocates nothing, so that a result can be announced where nothing may fail.
class callback_item {
 public:
  callback_item(const callback_item&) = delete;
  callback_item& operator=(const callback_item&) = delete;

  /// Called once, on the callback thread. May end the item's life.
  virtual void run() noexcept = 0;

 protected:
  callback_item() = default;
  ~callback_item() = default;

 private:
  friend class callback_thread;
  callback_item* next_ = nullptr;  // all three guarded by the queue's mutex
  callback_item* previous_ = nullptr;
  bool queued_ = false;
};

/// Runs what is posted, one item at a time, in the order of posting, on one thread of its own that starts when it is
/// first needed. Safe to call from several threads, of the process that made it.
///
/// A callback may wait for results. It does not run the items behind it meanwhile: they could wait for what it returns,
/// and a thousand of them for each other, each on top of the one before. The wait runs what its result depends on
/// (run_now), out of turn, and nothing else.
class callback_thread {
 public:
  callback_thread() : state_(std::make_shared<state>()) {}
  callback_thread(const callback_thread&) = delete;
  callback_thread& operator=(const callback_thread&) = delete;

  ~callback_thread() {
    if (!owned()) {
      // A forked child has a copy of the handle, but no thread behind it.
      static_cast<void>(state_->thread.release());
      return;
    }
    drain_and_stop();
    // Still there only if this is a callback: the thread leaves by itself once nothing is due, and owns what it needs.
    const std::lock_guard lock(state_->mutex);
    if (state_->thread) state_->thread->detach();
    state_->thread.reset();
  }

  /// Queues an item. Allocates nothing in this thread but the callback thread itself, and runs nothing: may be called
  /// under a lock that callbacks take too. Follow it by serve_if_stranded() where no such lock is held.
  void enqueue(callback_item& item) noexcept {
    const std::shared_ptr<state> kept = state_;  // the item may run at once, and with it the last use of this object
    {
      const std::lock_guard lock(kept->mutex);
      kept->link(item);
      if (!kept->serving) kept->start(kept);
    }
    kept->events.notify();
  }

  /// If the system gave no thread for what is queued, this thread stands in for it until the queue is empty.
  void serve_if_stranded() noexcept {
    if (state_->stranded.load(std::memory_order_acquire)) state::stand_in(state_);
  }

  void post(callback_item& item) noexcept {
    const std::shared_ptr<state> kept = state_;
    enqueue(item);
    if (kept->stranded.load(std::memory_order_acquire)) state::stand_in(kept);
  }

  /// Posts any callable; what it throws ends the program, as what a thread throws.
  template <class Function>
    requires std::is_invocable_v<std::decay_t<Function>&>
  void post(Function&& function) {
    post(*new owned_call<std::decay_t<Function>>(std::forward<Function>(function)));
  }

  /// Whether the calling thread is the callback thread: the caller is inside a callback.
  bool here() const noexcept {
    return state_->runner.load(std::memory_order_relaxed) == std::this_thread::get_id() && owned();
  }

  /// For a wait inside a callback, on an item that the awaited result depends on: if it is queued, runs it in the middle
  /// of the running one. False if it is not queued.
  bool run_now(callback_item& item) noexcept {
    if (!withdraw(item)) return false;
    item.run();
    return true;
  }

  /// Takes an item out of the queue; false if it is not in it: not posted, or begun.
  bool withdraw(callback_item& item) noexcept {
    const std::lock_guard lock(state_->mutex);
    if (!item.queued_) return false;
    state_->unlink(item);
    return true;
  }

  /// What a wait inside a callback sleeps on: notified when an item is queued, and by whoever else has news for it.
  event_count& events() noexcept { return state_->events; }

  /// Inside a callback: runs the items behind it, in order, until `done()` or the deadline. For a wait that cannot tell
  /// which items it depends on; whatever makes `done()` true notifies events(). Returns done().
  template <class Done>
  bool pump_until(Done&& done, steady_time deadline = no_deadline) {
    const std::shared_ptr<state> kept = state_;
    for (;;) {
      const std::uint32_t seen = kept->events.now();
      if (done()) return true;
      if (std::chrono::steady_clock::now() >= deadline) return false;
      if (!kept->run_next()) kept->events.wait(seen, deadline);
    }
  }

  /// Returns when all that is due has run and the thread is gone. Inside a callback it does not wait: the thread then
  /// leaves once nothing is due. What is posted later starts a thread again, which leaves when the queue is empty.
  void drain_and_stop() noexcept {
    if (!owned()) return;
    const std::shared_ptr<state> kept = state_;
    {
      const std::lock_guard lock(kept->mutex);
      kept->stopping = true;
    }
    kept->events.notify();
    if (here()) return;
    const std::lock_guard joining(kept->joining);  // all who stop it return only when it is gone
    for (;;) {
      if (kept->stranded.load(std::memory_order_acquire)) state::stand_in(kept);
      const std::uint32_t seen = kept->events.now();
      std::unique_ptr<std::thread> leaving;
      {
        const std::lock_guard lock(kept->mutex);
        if (!kept->serving && kept->first == nullptr) {
          leaving = std::move(kept->thread);
          if (!leaving) return;
        }
      }
      if (leaving) {
        leaving->join();
      } else {
        kept->events.wait(seen, no_deadline);
      }
    }
  }

 private:
  template <class Function>
  class owned_call final : public callback_item {
   public:
    template <class From>
    explicit owned_call(From&& from) : function_(std::forward<From>(from)) {}
    void run() noexcept override {
      const std::unique_ptr<owned_call> self(this);
      function_();
    }

   private:
    Function function_;
  };

  // Shared with the thread, which may be the last to need it.
  struct state {
    const pid_t owner = current_process();
    std::mutex joining;  // taken before `mutex`
    std::mutex mutex;    // guards what follows up to `thread`
    callback_item* first = nullptr;
    callback_item* last = nullptr;
    bool serving = false;   // a thread takes items from the queue until it is empty, or for ever
    bool stopping = false;  // it leaves when the queue is empty
    std::unique_ptr<std::thread> thread;
    event_count events;
    std::atomic<std::thread::id> runner{};  // who serves; changes under `mutex`
    std::atomic<bool> stranded{false};      // items are queued and no thread could be started

    void link(callback_item& item) noexcept {
      item.queued_ = true;
      item.next_ = nullptr;
      item.previous_ = last;
      (last != nullptr ? last->next_ : first) = &item;
      last = &item;
    }

    void unlink(callback_item& item) noexcept {
      item.queued_ = false;
      (item.previous_ != nullptr ? item.previous_->next_ : first) = item.next_;
      (item.next_ != nullptr ? item.next_->previous_ : last) = item.previous_;
    }

    bool run_next() noexcept {
      callback_item* item = nullptr;
      {
        const std::lock_guard lock(mutex);
        item = first;
        if (item == nullptr) return false;
        unlink(*item);
      }
      item->run();
      return true;
    }

    // Under `mutex`, while nobody serves.
    void start(const std::shared_ptr<state>& self) noexcept {
      if (thread) thread->detach();  // an earlier one, which has left the queue: its last steps need nothing of ours
      thread.reset();
      // The application's signals are for its own threads, but a fault in a callback is for its own handlers.
      sigset_t blocked;
      sigset_t before;
      sigfillset(&blocked);
      for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS}) sigdelset(&blocked, fault);
      pthread_sigmask(SIG_SETMASK, &blocked, &before);
      try {
        thread = std::make_unique<std::thread>([self] { serve(self, true); });
        serving = true;
      } catch (...) {
        // No memory or no thread: whoever queued the item stands in.
      }
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      stranded.store(!serving, std::memory_order_release);
    }

    // Runs what is queued; then leaves if `stopping` or it only stood in, else sleeps until there is more.
    static void serve(const std::shared_ptr<state>& self, bool stays) noexcept {
      if (stays) pthread_setname_np(pthread_self(), "procpool-calls");
      self->runner.store(std::this_thread::get_id(), std::memory_order_relaxed);
      for (;;) {
        const std::uint32_t seen = self->events.now();
        if (self->run_next()) continue;
        {
          const std::lock_guard lock(self->mutex);
          if (self->first != nullptr) continue;
          if (self->stopping || !stays) {
            self->runner.store({}, std::memory_order_relaxed);
            self->serving = false;
            break;
          }
        }
        self->events.wait(seen, no_deadline);
      }
      self->events.notify();  // to drain_and_stop()
    }

    static void stand_in(const std::shared_ptr<state>& self) noexcept {
      const std::shared_ptr<state> kept = self;
      {
        const std::lock_guard lock(kept->mutex);
        kept->stranded.store(false, std::memory_order_relaxed);
        if (kept->serving || kept->first == nullptr) return;
        kept->serving = true;
      }
      serve(kept, false);
    }
  };

  bool owned() const noexcept { return state_->owner == current_process(); }

  const std::shared_ptr<state> state_;
};

}  // namespace procpool::detail
