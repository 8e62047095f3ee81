// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <procpool/detail/engine_setup.hpp>
#include <procpool/detail/shared_memory/worker_main.hpp>

#include "judge.hpp"
#include "stepped_process.hpp"

namespace instructions {

/// What has been tried.
struct tally {
  std::size_t kill_points = 0;  ///< instructions after which the worker could have died
  std::size_t judged = 0;       ///< verdicts; at the other points nothing had changed that a verdict depends on
  std::size_t rejudged = 0;     ///< of these, verdicts on what had not changed, as a check of that
  std::size_t sweeps = 0;       ///< rounds in which the parent did something at one certain instruction
  std::size_t taken_back = 0;   ///< attempts to take elements back
  std::size_t came_back = 0;    ///< attempts that succeeded
};

/// One worker, all of its life: the library's own worker_main() under a tracer that is its parent and its zygote. The
/// parent takes replies and posts what waits whenever the worker is about to sleep, and in between when it is told to.
class session {
 public:
  enum class initializer { counts, throws };

  session(tally& counted_in, initializer kind) : tally_(counted_in) {
    counted = &counts_;
    // Made before the fork, and not by the worker.
    static_cast<void>(pattern());
    static_cast<void>(judge::initializer_failure());
    setup_.name = "stepped";
    setup_.initializer = [kind] {
      const running here(run_counts::initializer);
      if (kind == initializer::throws) throw std::runtime_error(judge::initializer_failure());
    };
    setup_.finalizer = [] { const running here(run_counts::finalizer); };
    start_process();
  }
  ~session() { counted = nullptr; }
  session(const session&) = delete;
  session& operator=(const session&) = delete;

  std::uint64_t next_id() const noexcept { return next_id_; }
  const reply_half& replies() const noexcept { return parent_.replies(); }
  bool all_ended() const noexcept { return parent_.all_ended(); }
  std::size_t lost() const noexcept { return parent_.lost(); }
  /// How often the parent found the worker about to sleep.
  std::size_t attended() const noexcept { return attended_; }

  // ---- whole lives ------------------------------------------------------------------------------------------------

  /// Until the worker is ready and about to sleep.
  void start() {
    while (!idle()) advance();
    require_ready();
  }
  void start_quickly() {
    while (!parent_.port.initialized()) hurry();
  }

  /// Until every element of the message has been run and its reply taken: when the worker is about to sleep, and every
  /// `collect_every` instructions besides.
  void serve(std::unique_ptr<message> what, std::size_t collect_every = 0) {
    submit(std::move(what));
    post();
    while (!all_ended()) {
      advance();
      if (collect_every != 0 && tally_.kill_points % collect_every == 0) collect();
    }
  }

  /// Has the worker leave, and sees it through to its end.
  void leave() {
    tell_to_leave();
    while (process_->alive()) advance();
    check_left();
  }
  void leave_quickly() {
    tell_to_leave();
    while (process_->alive()) hurry();
    check_left();
  }

  /// The initializer fails: until the process has ended.
  void fail() {
    while (process_->alive()) advance();
    if (!process_->exited_with(EXIT_FAILURE)) throw violation("the worker " + process_->end());
    if (parent_.port.initialized() || parent_.port.failure().empty()) throw violation("the failure is not told");
  }

  /// Kills the worker where it is, and starts another one on the lane.
  void replace() {
    process_.reset();
    parent_.replace_worker();
    // The other one counts anew.
    counts_[run_counts::initializer].entered.store(0);
    counts_[run_counts::initializer].finished.store(0);
    judge_.parent_changed();
    start_process();
    start_quickly();
  }

  // ---- what the worker does ---------------------------------------------------------------------------------------

  /// One instruction, and the verdict on it. None if the worker is about to sleep, and all has ended.
  void advance() {
    if (idle()) {
      attend();
      if (all_ended() && !told_to_leave_) return;
      if (process_->about_to_sleep()) throw violation("the worker sleeps, and the parent has no reason to wake it");
    }
    process_->step();
    look();
    if (++unchanged_ == hung_after) throw violation("the worker gets nowhere");
  }

  /// At full speed to behind the next write to one of the words that say how far the worker is. While it is asleep it
  /// gets on by single instructions, as it must not fall asleep unseen.
  void hurry() {
    if (replies().asleep.load() != sleeping_for::nothing) return advance();
    process_->run();
    look();
  }

  /// Posts what is submitted, all before having been read, and hurries to where the first bytes of the next reply are
  /// written.
  void hurry_to_reply() {
    const std::byte* at = replies().ring + parent_.requests().taken_bytes.load() % ring_bytes;
    const std::uint64_t number = replies().published.load() + 1;
    const auto seen = [&at] {
      std::uint64_t word;
      std::memcpy(&word, at, sizeof(word));
      return word;
    };
    watch(at);
    post();
    while (seen() != number && replies().published.load() != number) {
      if (seen() == reply_header::wrap) watch(at = replies().ring);
      hurry();
    }
    watch(&replies().state);
  }

  // ---- what the parent does ---------------------------------------------------------------------------------------

  void submit(std::unique_ptr<message> what) {
    next_id_ = what->first + what->count();
    parent_.submit(*what);
    messages_.push_back(std::move(what));
    judge_.parent_changed();
  }
  void post() {
    parent_.post(~std::size_t{0});
    judge_.parent_changed();
  }
  void collect() {
    if (dozing_ || !parent_.anything_published()) return;
    parent_.collect();
    judge_.parent_changed();
  }
  void tell_to_leave() {
    parent_.port.leave();
    parent_.port.wake();
    told_to_leave_ = true;
    judge_.parent_changed();
  }

  /// The two halves of taking back all that is not published, nor one of `more` behind that.
  void begin_take_back(std::uint64_t more) {
    ++tally_.taken_back;
    parent_.begin_take_back(replies().published.load() + more);
    judge_.parent_changed();
  }
  void join_queued() { parent_.join_queued(); }
  void finish_take_back() {
    if (parent_.finish_take_back()) ++tally_.came_back;
    judge_.parent_changed();
  }

  /// Asks an element to stop by itself.
  void ask_to_stop(std::uint64_t number) { parent_.port.request_stop(number); }

  /// Goes to sleep, and does nothing until it is rung for.
  void doze() {
    if (++turn_ == 0) ++turn_;
    parent_.port.set_sleeping(turn_);
    dozing_ = true;
    if (parent_.anything_published()) wake_up();
    judge_.parent_changed();
  }

 private:
  static constexpr std::size_t hung_after = 500'000;     ///< instructions without a verdict
  static constexpr std::size_t longest_step_back = 150;  ///< instructions from a claim to the step back from it
  static constexpr std::size_t rejudge_every = 4099;

  void start_process() {
    const pid_t zygote = ::getpid();
    std::fflush(nullptr);
    process_ = std::make_unique<stepped_process>([&] {
      const worker_plan plan{setup_, parent_.region, parent_.bells};
      worker_main(plan, 0, 0, parent_.worker_socket(), zygote);
    });
    watch(&replies().state);
  }

  /// Stops a worker in a hurry at these.
  void watch(const void* besides) {
    process_->watch({&replies().published, &replies().claimed, &replies().asleep, besides});
  }

  bool idle() const { return replies().asleep.load() != sleeping_for::nothing && process_->about_to_sleep(); }

  /// The worker has got on: is all as it should be, should it die here?
  void look() {
    ++tally_.kill_points;
    if (parent_.current() != nullptr && parent_.current()->uses_attachments) parent_.port.receive();
    if (dozing_ && rung()) wake_up();
    claims_too_much_ = replies().claimed.load() > parent_.port.last() ? claims_too_much_ + 1 : 0;
    if (claims_too_much_ > longest_step_back) throw violation("the worker keeps a claim to what was taken back");
    if (replies().claimed.load() != parent_.claimed) {
      parent_.claimed = replies().claimed.load();
      parent_.claimed_at = std::chrono::steady_clock::now();
    }
    const bool due = judge_.is_due();
    if (!due && tally_.kill_points % rejudge_every != 0) return;
    if (due) {
      unchanged_ = 0;
    } else {
      ++tally_.rejudged;
    }
    ++tally_.judged;
    judge_.pass_verdict();
  }

  /// The worker is about to sleep: whatever the parent has to do it does now.
  void attend() {
    ++attended_;
    if (replies().asleep.load() == sleeping_for::work) {
      if (parent_.requests().limit.load() > replies().published.load()) {
        throw violation("the worker is about to sleep, with something to run");
      }
      if (replies().claimed.load() != replies().published.load()) {
        throw violation("the worker is about to sleep, and says that it runs something");
      }
      if (told_to_leave_) throw violation("the worker is about to sleep, and was told to leave");
    }
    if (dozing_) {
      if (!rung() && parent_.anything_published())
        throw violation("parent and worker sleep, and neither wakes the other");
      wake_up();
    }
    finish_take_back();
    collect();
    post();
  }

  bool rung() const {
    pollfd wanted{parent_.bells.of(turn_).fd(), POLLIN, 0};
    return ::poll(&wanted, 1, 0) == 1;
  }
  void wake_up() {
    parent_.bells.of(turn_).answer();
    parent_.port.set_sleeping(0);
    dozing_ = false;
    collect();
  }

  void require_ready() const {
    if (!parent_.port.initialized()) throw violation("the worker sleeps before it is ready");
  }

  /// The worker has left in good order, all it was given has run, and everything exactly as often as it should.
  void check_left() {
    if (!process_->exited_with(EXIT_SUCCESS)) throw violation("the worker " + process_->end());
    if (!parent_.port.left()) throw violation("the worker ended without having left");
    collect();
    if (!all_ended()) throw violation("the worker has left, and not all has run");
    for (const auto& each : messages_) {
      for (std::size_t i = 0; i != each->count(); ++i) {
        const std::uint32_t runs = each->expected[i].runs ? 1 : 0;
        require(counts_[each->first + i].entered.load() <= runs, "ran again later", each->first + i);
      }
    }
  }

  tally& tally_;
  run_counts counts_;
  engine_setup setup_;
  std::vector<std::unique_ptr<message>> messages_;
  parent_end parent_{counts_};
  judge judge_{parent_, counts_};
  std::unique_ptr<stepped_process> process_;
  std::uint64_t next_id_ = run_counts::first_element;
  std::size_t unchanged_ = 0;        ///< instructions since the last verdict
  std::size_t claims_too_much_ = 0;  ///< looks in a row at which it claimed more than is posted
  std::size_t attended_ = 0;
  std::uint32_t turn_ = 0;
  bool dozing_ = false;
  bool told_to_leave_ = false;
};

}  // namespace instructions
