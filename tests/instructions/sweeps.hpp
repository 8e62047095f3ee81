// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "session.hpp"

namespace instructions {

// Sweeps: the parent does something at one certain instruction of the worker, round after round at a later one, until
// all instructions of the race are through. Between the races the worker runs at full speed.

inline std::unique_ptr<message> small_elements(const session& worker, std::size_t count, std::size_t each) {
  return make_message("swept", worker.next_id(), &small_task, count, each,
                      [](std::uint64_t id) { return std::make_tuple(id); });
}

inline std::unique_ptr<message> series_of_small_elements(const session& worker, std::size_t count, std::size_t each) {
  return as_series(small_elements(worker, count, each));
}

/// Advances by `offset` instructions, but not beyond the first `enough` that find the event `passed`. How many these were.
template <class Passed>
std::size_t advance_past(session& worker, Passed passed, std::size_t offset, std::size_t enough) {
  std::size_t since = 0;
  for (std::size_t i = 0; i != offset && since != enough; ++i) {
    worker.advance();
    if (passed()) ++since;
  }
  return since;
}

/// The event: the worker has claimed element `number`.
inline std::size_t advance_past_claim(session& worker, std::uint64_t number, std::size_t offset, std::size_t enough) {
  return advance_past(worker, [&] { return worker.replies().claimed.load() >= number; }, offset, enough);
}

/// Elements are taken back while the worker goes from one to the next: from when it has published one to well after it
/// has claimed the next. In two of three rounds the worker gets on between the two halves of taking back. `shortest`:
/// elements of a chunk.
template <class Elements>
void sweep_take_back(tally& all, session& worker, std::size_t stride, Elements elements_for, std::size_t shortest) {
  constexpr std::size_t well_after = 100;
  for (std::size_t round = 0;; ++round) {
    const std::size_t offset = round / 2 * stride;  // once with the same numbers posted again at once, once without
    ++all.sweeps;
    auto elements = elements_for(worker, 6, 6);
    elements->cut(shortest + round % 4);
    worker.submit(std::move(elements));
    worker.post();
    const std::uint64_t before = worker.replies().published.load();
    while (worker.replies().published.load() == before) worker.hurry();
    const std::size_t since_claim = advance_past_claim(worker, before + 2, offset, well_after);
    worker.begin_take_back(round % 7 == 6 ? 1 : 0);
    for (std::size_t gap = round % 3 * (round % 11) * 4; gap != 0; --gap) worker.advance();
    worker.finish_take_back();
    if (round / 2 % 2 == 0) worker.join_queued();
    if (round % 2 == 0) worker.post();  // the same numbers at once, else when the worker has seen that they are gone
    for (std::size_t i = 0; i != 2 * well_after && !worker.all_ended(); ++i) worker.advance();
    while (!worker.all_ended()) worker.hurry();
    if (since_claim == well_after) return;
  }
}

/// Where a race with a worker that runs out of work begins.
enum class from { last_published, asleep };

/// Runs all that is posted, up to where the race begins.
inline void run_dry(session& worker, std::size_t elements, from where) {
  const std::uint64_t last = worker.replies().published.load() + elements;
  worker.post();
  while (worker.replies().published.load() != last ||
         (where == from::asleep && worker.replies().asleep.load() == sleeping_for::nothing)) {
    worker.hurry();
  }
}

/// One more element is posted while the worker falls asleep.
inline void sweep_post(tally& all, session& worker, from where, std::size_t stride) {
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    worker.submit(small_elements(worker, 1, 1));
    run_dry(worker, 1, where);
    for (std::size_t i = 0; i != offset && !worker.all_ended(); ++i) worker.advance();
    const bool slept = worker.all_ended();
    worker.collect();
    worker.submit(small_elements(worker, 1, 1));
    worker.post();
    while (!worker.all_ended()) worker.hurry();
    if (slept) return;
  }
}

/// A full ring is emptied while the worker falls asleep for want of room in it.
inline void sweep_room(tally& all, session& worker, std::size_t stride) {
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    worker.submit(make_message("filling", worker.next_id(), &text_task, 10, 10,
                               [](std::uint64_t id) { return std::make_tuple(id, std::uint64_t{30'000}); }));
    worker.post();
    while (worker.replies().asleep.load() != sleeping_for::room) worker.hurry();
    const std::size_t attended = worker.attended();
    for (std::size_t i = 0; i != offset && worker.attended() == attended; ++i) worker.advance();
    const bool slept = worker.attended() != attended;
    worker.collect();
    while (!worker.all_ended()) worker.hurry();
    if (slept) return;
  }
}

/// The worker is killed in truth at one instruction after the other of an element's life, and what it had not started
/// is run by the next one, which has its lane and its numbers.
template <class Elements>
void sweep_kill(tally& all, session& worker, std::size_t stride, Elements elements_for) {
  constexpr std::size_t well_after = 100;
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    worker.submit(elements_for(worker, 6, 2));
    worker.post();
    const std::uint64_t before = worker.replies().published.load();
    while (worker.replies().claimed.load() == before) worker.hurry();
    const std::size_t since_next = advance_past_claim(worker, before + 2, offset, well_after);
    const std::uint64_t started = worker.replies().claimed.load() - worker.replies().published.load();
    worker.replace();
    worker.post();
    while (!worker.all_ended()) worker.hurry();
    if (worker.lost() != started) throw violation(std::to_string(worker.lost()) + " lost by one death");
    if (since_next == well_after) return;
  }
}

/// An element is asked to stop, from when it is claimed to well after the next one is: that one is not to be asked.
inline void sweep_stop(tally& all, session& worker, std::size_t stride) {
  constexpr std::size_t well_after = 100;
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    auto elements = make_message("asked to stop", worker.next_id(), &asked_task, 3, 3,
                                 [](std::uint64_t id) { return std::make_tuple(id); });
    elements->job.limits.timeout = std::chrono::hours(1);
    const std::uint64_t first = elements->first;
    elements->verify = [first](std::uint64_t id, const lane_port::worker_reply& answer, lane_port&) {
      byte_reader bytes(answer.data, answer.size);
      const bool asked = decode<bool>(bytes);
      return answer.kind == reply_kind::value && (!asked || id == first);
    };
    worker.submit(std::move(elements));
    worker.post();
    const std::uint64_t before = worker.replies().published.load();
    while (worker.replies().claimed.load() == before) worker.hurry();
    const std::size_t since_next = advance_past_claim(worker, before + 2, offset, well_after);
    worker.ask_to_stop(before + 1);
    while (!worker.all_ended()) worker.hurry();
    if (since_next == well_after) return;
  }
}

/// The parent goes to sleep, to be rung for, while the worker publishes: from when the first bytes of the reply lie in
/// the ring to well after the number is published.
inline void sweep_doze(tally& all, session& worker, std::size_t stride) {
  constexpr std::size_t well_after = 60;
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    worker.submit(small_elements(worker, 1, 1));  // none behind it that would be rung for
    worker.hurry_to_reply();
    const std::uint64_t before = worker.replies().published.load();
    const auto published = [&] { return worker.replies().published.load() != before; };
    const std::size_t since_published = advance_past(worker, published, offset, well_after);
    worker.doze();
    for (std::size_t i = 0; i != well_after; ++i) worker.advance();
    while (!worker.all_ended()) worker.hurry();
    if (since_published == well_after) return;
  }
}

/// The parent goes to sleep, to be rung for behind a series, while that runs: from when its second element is claimed to
/// well after the last one is published.
inline void sweep_doze_behind_series(tally& all, session& worker, std::size_t stride) {
  constexpr std::size_t well_after = 60;
  for (std::size_t offset = 0;; offset += stride) {
    ++all.sweeps;
    worker.submit(series_of_small_elements(worker, 3, 3));
    worker.post();
    const std::uint64_t before = worker.replies().published.load();
    while (worker.replies().claimed.load() < before + 2) worker.hurry();
    const auto published = [&] { return worker.replies().published.load() == before + 3; };
    const std::size_t since_published = advance_past(worker, published, offset, well_after);
    worker.collect();
    worker.doze();
    for (std::size_t i = 0; i != well_after; ++i) worker.advance();
    while (!worker.all_ended()) worker.hurry();
    if (since_published == well_after) return;
  }
}

/// The worker is told to leave while it falls asleep, in every other round with one more element to run before. Each
/// round takes a worker of its own.
inline void sweep_leave(tally& all, from where, std::size_t stride) {
  bool slept = false;
  for (std::size_t offset = 0; !slept; offset += stride) {
    for (const bool one_more : {false, true}) {
      ++all.sweeps;
      session worker(all, session::initializer::counts);
      worker.start_quickly();
      worker.submit(small_elements(worker, 1, 1));
      run_dry(worker, 1, where);
      for (std::size_t i = 0; i != offset && !worker.all_ended(); ++i) worker.advance();
      slept = worker.all_ended();
      if (one_more) {
        worker.collect();
        worker.submit(small_elements(worker, 1, 1));
        worker.post();
      }
      worker.leave_quickly();
    }
  }
}

}  // namespace instructions
