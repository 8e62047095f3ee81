// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include <procpool/detail/bookkeeping.hpp>
#include <procpool/detail/deadline.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/scheduler/busy_workers.hpp>
#include <procpool/detail/scheduler/crew.hpp>
#include <procpool/detail/scheduler/crowd.hpp>
#include <procpool/detail/scheduler/leftovers.hpp>
#include <procpool/detail/scheduler/worker_set.hpp>
#include <procpool/detail/scheduler/worker_transport.hpp>

namespace procpool::detail {

/// Which element is where: in the queue, in the queue of one worker, or posted to a lane. It decides what goes to which
/// worker, what is taken back, and what ends without having run, and it counts. The only truth about a task, and all of
/// it in private memory. Every member is called under the scheduler's mutex, but for those of busy().
template <worker_transport Workers>
class task_table {
 public:
  task_table(Workers& workers, crew<Workers>& crew)
      : workers_(workers), crew_(crew), busy_(crew.size()), crowd_(workers, crew) {}

  std::size_t submitted = 0;
  std::size_t completed = 0;  ///< ended in a value
  std::size_t failed = 0;     ///< ended in anything else
  std::size_t unsettled = 0;  ///< counted as failed, and about to be settled

  std::size_t in_flight() const noexcept { return submitted - completed - failed; }
  bool queue_empty() const noexcept { return queue_.empty(); }
  const busy_workers& busy() const noexcept { return busy_; }

  /// How many workers run an element that is not settled.
  std::size_t running() const noexcept {
    std::size_t count = 0;
    for (std::size_t i = 0; i != crew_.size(); ++i) count += crew_.running(i) ? 1U : 0U;
    return count;
  }
  /// How many workers have something to run.
  std::size_t occupied() const noexcept {
    std::size_t count = 0;
    for (std::size_t i = 0; i != crew_.size(); ++i) count += workers_.at(i).empty() ? 0U : 1U;
    return count;
  }
  bool running(const job& target) const noexcept {
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      const auto& port = workers_.at(i);
      if (crew_.running(i) && port.find(port.settled() + 1).first->target.get() == &target) return true;
    }
    return false;
  }

  /// From now on nothing waits any more: what does, and what would, ends for this reason.
  void end_all(end_cause why, std::string why_broken, leftovers& done) {
    if (!ending_) {
      ending_ = why;
      why_broken_ = std::move(why_broken);
    }
    const auto all = [](const chunk&) { return true; };
    withdraw_from(queue_, all, *ending_, done);
    for (std::size_t i = 0; i != crew_.size(); ++i) withdraw_from(crew_[i].own, all, *ending_, done);
    done.why_broken = text_of([this] { return why_broken_; });
  }
  bool ending() const noexcept { return ending_.has_value(); }
  const std::string& why_broken() const noexcept { return why_broken_; }

  /// Takes on what is submitted, and posts it if it can be posted now. Where others wait before it, no lane had room for
  /// them, and whoever finds some dispatches.
  void add(chunk&& what, leftovers& done) {
    submitted += what.count;
    if (ending_) {
      end(std::move(what), *ending_, done);
      done.why_broken = text_of([this] { return why_broken_; });
      return;
    }
    const int lane = what.lane;
    auto& home = home_of(what);
    home.push_back(std::move(what));
    if (home.size() != 1) return;
    if (lane == chunk::any_lane) {
      dispatch_shared(done);
    } else {
      dispatch_own(static_cast<std::size_t>(lane), done);
    }
  }

  /// Ends what waits for one worker that will never come.
  void end_own(std::size_t i, std::string why, leftovers& done) {
    if (crew_[i].own.empty()) return;
    done.why_broken = std::move(why);
    withdraw_from(crew_[i].own, [](const chunk&) { return true; }, end_cause::broken, done);
  }

  /// Ends every element that has not started and whose chunk satisfies `predicate`, wherever it waits.
  template <class Predicate>
  void withdraw(Predicate predicate, end_cause why, leftovers& done) {
    withdraw_from(queue_, predicate, why, done);
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      withdraw_from(crew_[i].own, predicate, why, done);
      auto& port = workers_.at(i);
      for (;;) {
        // What is condemned stays, even if the worker is about to step back from it and to start it again.
        const std::uint64_t claimed = std::max(port.claimed(), crew_[i].under.number);
        std::uint64_t lowest = 0;
        port.for_each_posted([&](const chunk& each, std::uint64_t first) {
          if (lowest == 0 && first + each.count - 1 > claimed && predicate(each)) lowest = std::max(first, claimed + 1);
        });
        if (lowest == 0) break;
        bookkeeping_vector<chunk> back;
        const bool taken = port.take_back(lowest - 1, back);
        done.to_wake.insert(i);
        if (!taken) continue;  // the worker got on meanwhile: look again from where it is now
        forget_head(i, lowest - 1);
        idle_ = true;  // this one may be: whoever settles something next balances
        bookkeeping_vector<chunk> others;
        for (chunk& each : back) {
          if (predicate(each)) {
            end(std::move(each), why, done);
          } else {
            others.push_back(std::move(each));
          }
        }
        put_back(others, done);
        break;
      }
    }
    dispatch(done);
  }

  /// The worker is gone, or does not matter any more: what is posted to it goes elsewhere, or ends with the pool.
  void abandon_posted(std::size_t i, leftovers& done) {
    bookkeeping_vector<chunk> back;
    workers_.at(i).take_all(back, done.through);
    put_back(back, done);
  }

  /// Takes back what is posted behind `number`, to where it waited before. False if the worker has gone past it.
  bool recall(std::size_t i, std::uint64_t number, leftovers& done) {
    bookkeeping_vector<chunk> back;
    const bool taken = workers_.at(i).take_back(number, back);
    done.to_wake.insert(i);  // it may have stepped back from a limit that is restored
    if (taken) forget_head(i, number);
    put_back(back, done);
    return taken;
  }

  /// The worker is gone: takes from it the element that it had started, or all that it was given if its word cannot be
  /// believed. What may be tried again waits again; the rest is counted as failed, and about to be settled.
  bookkeeping_vector<lost_element> take_started(std::size_t i, leftovers& done) {
    auto& port = workers_.at(i);
    const worker_record::sentence& under = crew_[i].under;
    const std::uint64_t settled = port.settled();
    const std::uint64_t last =
        crew_[i].malformed ? port.last() : std::max(std::min(port.claimed(), settled + 1), under.number);
    bookkeeping_vector<lost_element> lost;
    bookkeeping_vector<chunk> again;
    for (std::uint64_t number = settled + 1; number <= last; ++number) {
      const auto [where, offset] = port.find(number);
      chunk one = *where;
      one = one.split(offset);
      one.count = 1;
      std::optional<end_cause> why;
      if (number == under.number) why = under.why;
      if (ending_ == end_cause::terminated) why = ending_;
      if (!why && one.deaths++ < one.target->limits.retries) {
        again.push_back(std::move(one));
      } else {
        lost.push_back({std::move(one), why});
      }
    }
    port.settle(last, done.through);
    failed += lost.size();
    put_back(again, done);
    return lost;
  }

  /// Whether what waits is where it should be. Returns when to look again.
  steady_time tend(steady_time now, leftovers& done) {
    const steady_time next =
        crowd_.tend(now, !queue_.empty(), [&](std::size_t i) { recall(i, runs_or_next(i), done); });
    dispatch(done);
    balance(done);
    return std::min(next, take_soonest_look());
  }

  /// The earliest time at which the collector has to look for what was posted since the last call.
  steady_time take_soonest_look() noexcept { return std::exchange(soonest_look_, no_deadline); }

  /// Posts what waits to the workers that have least to do, as far as their lanes have room: when elements have ended, or
  /// workers have come.
  void dispatch(leftovers& done) {
    for (std::size_t i = 0; i != crew_.size(); ++i) dispatch_own(i, done);
    forget_levels();
    dispatch_shared(done);
  }

  /// The worker has ended some elements: more is posted, and if it or others have nothing to do, given away.
  void refill(std::size_t i, std::size_t ended, leftovers& done) {
    crowd_.ended(i, ended);
    if (workers_.at(i).empty()) busy_.erase(i);
    if (in_flight() == 0) {  // nothing waits anywhere, or moves
      forget_levels();
      idle_ = true;
      return;
    }
    const bool more = !queue_.empty();
    dispatch(done);
    if (more || idle_ || workers_.at(i).empty()) balance(done);
  }

  /// While a worker is idle and nothing is queued: takes half of what waits behind the busiest one, and gives it away.
  void balance(leftovers& done) {
    idle_ = crowd_.enough(soonest_look_);
    if (idle_) return;
    for (std::size_t idle = 0; idle != crew_.size(); ++idle) {
      if (!queue_.empty()) return;
      if (!crew_.takes(idle) || !workers_.at(idle).empty()) continue;
      std::size_t busiest = 0;
      surplus most;
      for (std::size_t i = 0; i != crew_.size(); ++i) {
        const surplus waiting = surplus_of(i);
        if (waiting.movable <= most.movable) continue;
        most = waiting;
        busiest = i;
      }
      idle_ = true;  // stays so if there is nothing for it, or it is not to be had now
      if (most.movable == 0) return;
      recall(busiest, most.keep, done);
      dispatch(done);
    }
  }

 private:
  /// What is above `kept` has been taken back: the same number may be another element's next, which has been there for
  /// no time yet.
  void forget_head(std::size_t i, std::uint64_t kept) noexcept {
    if (crew_[i].head > kept) crew_[i].head = 0;
  }

  /// Where a chunk waits that is not posted.
  bookkeeping_deque<chunk>& home_of(const chunk& what) noexcept {
    return what.lane == chunk::any_lane ? queue_ : crew_[static_cast<std::size_t>(what.lane)].own;
  }

  /// Puts chunks that were posted back where they came from, before all that waits there, in order. Where nothing waits
  /// any more, they end.
  void put_back(bookkeeping_vector<chunk>& chunks, leftovers& done) {
    if (ending_) {
      for (chunk& each : chunks) end(std::move(each), *ending_, done);
      done.why_broken = text_of([this] { return why_broken_; });
    } else {
      for (auto each = chunks.rbegin(); each != chunks.rend(); ++each) home_of(*each).push_front(std::move(*each));
    }
    chunks.clear();
  }

  /// Its elements end here: they are counted now and settled later.
  void end(chunk&& what, end_cause why, leftovers& done) {
    failed += what.count;
    unsettled += what.count;
    done.ended.push_back({std::move(what), why});
  }

  template <class Predicate>
  void withdraw_from(bookkeeping_deque<chunk>& queue, Predicate predicate, end_cause why, leftovers& done) {
    for (chunk& each : queue) {
      if (predicate(each)) end(std::move(each), why, done);
    }
    std::erase_if(queue, [](const chunk& each) { return !each.target; });
  }

  void dispatch_own(std::size_t i, leftovers& done) {
    auto& own = crew_[i].own;
    while (!own.empty() && crew_.takes(i) && post(i, own, done)) {
    }
  }
  void dispatch_shared(leftovers& done) {
    if (queue_.empty()) return;
    blocked_.clear();
    const auto may_take = [this](std::size_t i) { return crew_.takes(i) && !blocked_.contains(i); };
    while (!queue_.empty()) {
      if (queue_.front().skipped()) {
        end(std::move(queue_.front()), end_cause::skipped, done);
        queue_.pop_front();
        continue;
      }
      const std::size_t i = crowd_.enough(soonest_look_) ? crowd_.least_busy(may_take) : least_busy(may_take);
      if (i == crew_.size()) return;
      if (!post(i, queue_, done)) blocked_.insert(i);
    }
  }

  /// Posts the front of `queue`, or as much of it as the worker may still run. False if nothing could be done now.
  bool post(std::size_t i, bookkeeping_deque<chunk>& queue, leftovers& done) {
    chunk& front = queue.front();
    chunk rest;
    const auto keep_only = [&](std::size_t elements) {
      chunk tail = front.split(elements);
      tail.count += rest.count;
      rest = std::move(tail);
    };
    auto& port = workers_.at(i);
    const std::chrono::nanoseconds timeout = front.target->limits.timeout;
    if (front.count > crew_.budget(i)) keep_only(crew_.budget(i));
    post_result result = port.post(front);
    // An empty lane refuses what needs more descriptors than may be on their way at once: a part of it may need fewer.
    while (result == post_result::full && port.empty() && front.count > 1) {
      keep_only(front.count / 2);
      result = port.post(front);
    }
    if (result == post_result::full) {
      front.count += rest.count;
      return false;
    }
    if (result == post_result::too_large) end(std::move(front), end_cause::too_large, done);
    if (result == post_result::posted) {
      done.to_wake.insert(i);
      busy_.insert(i);
      crowd_.posted(i);
      if (timeout.count() != 0) {
        soonest_look_ = std::min(soonest_look_, later(std::chrono::steady_clock::now(), timeout));
      }
    }
    if (rest.count != 0) {
      front = std::move(rest);
    } else {
      queue.pop_front();
    }
    return true;
  }

  /// Of those that may be given more, one that has least to do; size() if there is none. Between two calls of
  /// forget_levels() what each has to do only grows: so this goes from one to the next of those that had no more than
  /// `level_`, and does not look at every worker each time.
  template <class Predicate>
  std::size_t least_busy(Predicate may_take) noexcept {
    for (; at_level_ != crew_.size(); ++at_level_) {
      if (workers_.at(at_level_).outstanding() <= level_ && may_take(at_level_)) return at_level_;
    }
    std::size_t best = crew_.size();
    std::size_t least = std::numeric_limits<std::size_t>::max();
    level_ = least;  // what the second has to do: the best is given that much
    for (std::size_t i = 0; i != crew_.size(); ++i) {
      const std::size_t outstanding = workers_.at(i).outstanding();
      if (outstanding >= level_ || !may_take(i)) continue;
      level_ = std::max(outstanding, least);
      if (outstanding >= least) continue;
      least = outstanding;
      best = i;
    }
    at_level_ = best;
    return best;
  }

  void forget_levels() noexcept { level_ = at_level_ = 0; }

  /// The highest number that is not to be taken from the worker, though it may be.
  std::uint64_t runs_or_next(std::size_t i) const noexcept {
    const auto& port = workers_.at(i);
    return std::max({port.claimed(), port.settled() + 1, crew_[i].under.number});
  }

  struct surplus {
    std::size_t movable = 0;  ///< elements that wait behind the one that runs, or runs next, and may run elsewhere
    std::uint64_t keep = 0;   ///< the number up to which the lane is to keep what it has
  };
  surplus surplus_of(std::size_t i) const noexcept {
    const auto& port = workers_.at(i);
    if (port.outstanding() < 2) return {};
    const std::uint64_t fixed = runs_or_next(i);
    const auto waiting = static_cast<std::size_t>(port.last() - fixed);
    std::size_t bound = 0;
    port.for_each_posted([&](const chunk& each, std::uint64_t first) {
      if (each.lane != chunk::any_lane && first > fixed) bound += each.count;
    });
    // What only this worker may run comes back to it at once; where it stands between the others, all is taken back.
    return {waiting - bound, bound == 0 ? port.last() - (waiting + 1) / 2 : fixed};
  }

  Workers& workers_;
  crew<Workers>& crew_;
  bookkeeping_deque<chunk> queue_;
  worker_set blocked_;        ///< dispatch_shared(): whose lane has no room now
  std::size_t level_ = 0;     ///< least_busy(): who has no more to do than this is given more,
  std::size_t at_level_ = 0;  ///< from this one on
  bool idle_ = false;         ///< a worker may have nothing to do, but for those that refill() is told of
  busy_workers busy_;
  crowd<Workers> crowd_;
  steady_time soonest_look_ = no_deadline;
  std::optional<end_cause> ending_;
  std::string why_broken_;
};

}  // namespace procpool::detail
