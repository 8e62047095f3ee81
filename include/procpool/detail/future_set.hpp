// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/event_count.hpp>
#include <procpool/detail/future_state.hpp>
#include <procpool/detail/small_lock.hpp>
#include <procpool/detail/waiting.hpp>

namespace procpool::detail {

/// Tells in which order results get ready: those that are ready when they are added first, in the order of adding.
/// One thread at a time adds and waits.
class future_set {
 public:
  static constexpr std::size_t none = static_cast<std::size_t>(-1);

  future_set() = default;
  future_set(const future_set&) = delete;
  future_set& operator=(const future_set&) = delete;

  ~future_set() {
    for (member& each : members_) {
      if (!each.state || !each.state->home().owned()) continue;
      each.state->remove_observer(each);
    }
  }

  /// Numbered from 0 in the order of adding.
  void add(boost::intrusive_ptr<future_state_base> state) {
    if (std::find(homes_.begin(), homes_.end(), state->shared_home()) == homes_.end())
      homes_.push_back(state->shared_home());
    member& fresh = members_.emplace_back(*this, members_.size());
    fresh.state = std::move(state);
    if (!fresh.state->add_observer(fresh)) arrived(fresh);
  }

  std::size_t left() const noexcept { return members_.size() - taken_; }

  /// The number of the next result to have got ready, each once; `none` if the deadline passed first or none is left.
  std::size_t next(steady_time deadline, const char* operation) {
    if (left() == 0) return none;
    for (const auto& home : homes_) home->require_owned(operation);
    event_count* here = &bell_;
    for (const auto& home : homes_)
      if (home->callbacks().here()) here = &home->callbacks().events();
    {
      const std::lock_guard lock(lock_);
      ring_ = here;
    }
    member* found = nullptr;
    std::uint32_t seen = here->now();
    help_until([this, &found] { return (found = pop()) != nullptr; },
               [this, here, &seen] {
                 seen = here->now();
                 return help(here != &bell_);
               },
               deadline, [here, &seen, deadline] { here->wait(seen, deadline); },
               [this](bool on) {
                 for (const auto& home : homes_) home->watch(on);
               },
               [](resting) { return false; });
    {
      const std::lock_guard lock(lock_);
      ring_ = &bell_;
    }
    if (found == nullptr) return none;
    ++taken_;
    found->state.reset();
    return found->number;
  }

 private:
  struct member final : ready_observer {
    member(future_set& set, std::size_t index) noexcept : owner(set), number(index) {}
    void on_ready() noexcept override { owner.arrived(*this); }

    future_set& owner;
    const std::size_t number;
    member* behind = nullptr;  // the next to have got ready
    boost::intrusive_ptr<future_state_base> state;
  };

  void arrived(member& which) noexcept {
    const std::lock_guard lock(lock_);
    (last_ != nullptr ? last_->behind : first_) = &which;
    last_ = &which;
    ring_->notify();
  }

  member* pop() noexcept {
    const std::lock_guard lock(lock_);
    member* which = first_;
    if (which == nullptr) return nullptr;
    first_ = which->behind;
    if (first_ == nullptr) last_ = nullptr;
    return which;
  }

  bool help(bool inside_callback) noexcept {
    bool helped = false;
    if (inside_callback)
      for (member& each : members_)
        if (each.state && !each.state->ready() && each.state->assist()) return true;
    for (const auto& home : homes_) helped = home->help() || helped;
    return helped;
  }

  std::deque<member> members_;  // never moved: the states point to them
  std::vector<std::shared_ptr<engine>> homes_;
  std::size_t taken_ = 0;
  event_count bell_;
  small_lock lock_;  // guards what follows; taken inside the lock of a state
  member* first_ = nullptr;
  member* last_ = nullptr;
  event_count* ring_ = &bell_;  // where the waiting thread listens
};

}  // namespace procpool::detail
