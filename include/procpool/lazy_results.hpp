// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <iterator>
#include <memory>
#include <optional>
#include <ranges>
#include <utility>

#include <procpool/detail/deadline.hpp>
#include <procpool/detail/lazy_core.hpp>
#include <procpool/detail/lazy_source.hpp>
#include <procpool/detail/pull_iterator.hpp>

namespace procpool {

/// The results of `imap` and its kin: a move-only input range, and a view, that is worked off as it is iterated over.
///
/// Inputs are taken on the thread that makes it and iterates: up to `buffersize` when it is made, then as it is
/// iterated, never more than `buffersize` ahead of what it has yielded, so an endless input works. In input order, or
/// for the `_unordered` members in the order of completion. The elements of tasks that return nothing are
/// `std::monostate`.
///
/// Errors   A failed task throws from the dereference of its own element, or from the `next()` that takes it, and
///          iteration can go on. What the input range throws comes where its element would have been; then the range is
///          at its end. After `close()`: what was taken is still yielded, then one `pool_closed`, then the end. After
///          `terminate()` unfinished elements throw `pool_terminated`. `std::logic_error` in a process other than the
///          one that constructed the pool.
/// Blocks   in `begin()`, `++` and `next()`, until the next element is there. Destroying it does not wait: what has not
///          started is cancelled. May outlive its pool. One thread at a time.
/// `progress` is called on the iterating thread; what it throws comes out there, and no element is lost.
template <class R>
class lazy_results : public std::ranges::view_base {
 public:
  using value_type = detail::lazy_element<R>;
  using iterator = detail::pull_iterator<detail::lazy_core<R>>;

  /// For the pool: starts at once. Throws `pool_closed` if it takes nothing any more.
  lazy_results(std::shared_ptr<detail::engine> home, std::unique_ptr<detail::lazy_source<R>> source,
               detail::lazy_options options)
      : core_(std::make_unique<detail::lazy_core<R>>(std::move(home), std::move(source), std::move(options))) {}

  /// Goes on where `next()`, or an iteration that was left, stopped: behind the last element that was looked at.
  iterator begin() {
    core_->settle_on_current();
    return iterator(*core_);
  }
  std::default_sentinel_t end() const noexcept { return {}; }

  /// The next result; empty at the end.
  std::optional<value_type> next() { return core_->next(detail::no_deadline); }

  /// As next(), but throws `timeout_error` if it is not ready after `timeout`, and can be called again.
  template <class Rep, class Period>
  std::optional<value_type> next(std::chrono::duration<Rep, Period> timeout) {
    return core_->next(detail::deadline_after(timeout));
  }

 private:
  std::unique_ptr<detail::lazy_core<R>> core_;
};

}  // namespace procpool
