// SPDX-License-Identifier: BSL-1.0
// Stops a worker after every instruction that it executes and judges the lane as the death of the worker at that very
// point would leave it. Through the parent's own recovery every element must come out in exactly one way: published
// with the right bytes, lost as the one that had started, or to be run elsewhere and never started.
//
//   instructions [--stride N] [--times N] [--at-least POINTS]
//     every N-th instruction of a race; every message N times, rare ones only if N is not 0; fewer points are a failure
//   instructions --mutant NAME     only where the headers have bugs seeded: finds it, and fails if it does not
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "session.hpp"
#include "sweeps.hpp"
#ifdef INSTRUCTIONS_SEEDED
#include "seeded.hpp"
#endif

using namespace instructions;

namespace {

using std::make_tuple;
using u64 = std::uint64_t;

constexpr auto only_id = [](u64 id) { return make_tuple(id); };

/// The lives of workers that are looked at. `stride`: every so many instructions of a race are tried; 1: all.
class lives {
 public:
  lives(std::size_t stride, std::size_t times) : stride_(stride), times_(times) {}

  void all() {
    whole();
    races();
    failure();
    departures();
  }

  /// Every kind of message, one after the other, in one life of a worker that is stepped through from its first
  /// instruction to its last.
  void whole() {
    session worker(tried, session::initializer::counts);
    begin("start");
    worker.start();
    std::size_t round = 0;
    do {
      small(worker);
      spilled(worker);
      large(worker);
      series(worker);
      thrown(worker);
      arrays(worker);
      if (times_ == 0) break;
      unserializable(worker);
      out_of_memory(worker);
    } while (++round != times_);
    begin("leave");
    worker.leave();
    tell();
  }

  // ---- messages ---------------------------------------------------------------------------------------------------

  void small(session& worker) {
    serve(worker, make_message("one", worker.next_id(), &small_task, 1, 1, only_id));
    serve(worker, make_message("one at a time", worker.next_id(), &small_task, 3, 1, only_id), 50);
    serve(worker, make_message("a chunk", worker.next_id(), &small_task, 8, 8, only_id));
    serve(worker,
          make_message("elements of many sizes", worker.next_id(), &text_task, 4, 4,
                       [](u64 id) { return make_tuple(id, id * 37 % 500); }),
          97);
    serve(worker, make_message("a callable with bytes", worker.next_id(), labelling{"label "}, 4, 2, only_id));
  }

  /// Elements that run in one go, and one of them that fails.
  void series(session& worker) {
    serve(worker, as_series(make_message("a series", worker.next_id(), &small_task, 8, 8, only_id)));
    serve(worker, as_series(make_message("series, and taken soon", worker.next_id(), &small_task, 9, 3, only_id)), 61);
    const u64 first = worker.next_id();
    serve(worker, as_series(make_message("a series with failures", first, &failing_task, 7, 7,
                                         [first](u64 id) { return make_tuple(id, id == first || id == first + 3); })));
  }

  /// More than the ring holds: the worker waits for room, and replies wrap round its end.
  void spilled(session& worker) {
    const u64 first = worker.next_id();
    const auto size = [first](u64 id) {
      return make_tuple(id, id % 7 * 8 + (id < first + 9 ? u64{30'000} : u64{3'000}));
    };
    serve(worker, make_message("spilled", first, &text_task, 13, 13, size));
    serve(worker,
          make_message("spilled, and taken soon", worker.next_id(), &text_task, 4, 2,
                       [](u64 id) { return make_tuple(id, u64{31'000} + id % 7); }),
          211);
  }

  void large(session& worker) {
    auto what = make_message("64 KiB", worker.next_id(), &large_task, 2, 1, [](u64 id) {
      return make_tuple(id, std::string_view(pattern() + id * 8 % 4096, std::size_t{64} << 10));
    });
    what->uses_request_arena = true;
    serve(worker, std::move(what));
  }

  /// An exception, and what is skipped behind it.
  void thrown(session& worker) {
    const u64 first = worker.next_id();
    auto what = make_message("an exception, and skipped", first, &failing_task, 6, 4,
                             [first](u64 id) { return make_tuple(id, id == first + 1); });
    what->job.stop_on_failure = true;
    for (std::size_t i = 2; i != what->count(); ++i) what->expected[i] = {reply_kind::skipped, {}, false};
    serve(worker, std::move(what));
  }

  void unserializable(session& worker) {
    serve(worker, make_message("unserializable", worker.next_id(), &awkward_task, 1, 1, only_id));
  }

  void out_of_memory(session& worker) {
    auto what = std::make_unique<message>("no room for the result", worker.next_id(), &endless_code);
    inputs_ptr arguments(new inputs);
    arguments->bytes.put(what->first);
    arguments->end_element();
    what->add(std::move(arguments));
    what->expected.front().kind = reply_kind::out_of_memory;
    serve(worker, std::move(what));
  }

  void arrays(session& worker) {
    auto in = procpool::make_shared_array<u64>(64);
    for (std::size_t i = 0; i != in.size(); ++i) in[i] = i + 1;
    auto what =
        make_message("shared arrays", worker.next_id(), &array_task, 1, 1, [&](u64 id) { return make_tuple(id, in); });
    what->uses_attachments = true;
    what->verify = [](u64 id, const lane_port::worker_reply& answer, lane_port& port) {
      byte_reader bytes(answer.data, answer.size, &port.inbox());
      const auto out = decode<procpool::shared_array<u64>>(bytes);
      bool right = answer.kind == reply_kind::value && out.size() == 64;
      for (std::size_t i = 0; right && i != out.size(); ++i) right = out[i] == (i + 1) * id;
      return right;
    };
    serve(worker, std::move(what));
  }

  // ---- other lives ------------------------------------------------------------------------------------------------

  /// The parent does something else while the worker gets on, at one instruction after the other.
  void races() {
    session worker(tried, session::initializer::counts);
    begin("start, at full speed");
    worker.start_quickly();
    taken_back(worker);
    series_taken_back(worker);
    posted(worker);
    rung_for(worker);
    rung_for_series(worker);
    asked_to_stop(worker);
    begin("room made");
    sweep_room(tried, worker, 3 * stride_);
    begin("killed and replaced");
    sweep_kill(tried, worker, 30 * stride_, small_elements);
    begin("killed in a series");
    sweep_kill(tried, worker, 20 * stride_, series_of_small_elements);
    begin("leave");
    worker.leave_quickly();
    tell();
  }

  void taken_back(session& worker) {
    begin("taken back");
    sweep_take_back(tried, worker, stride_, small_elements, 1);
    tell();
  }
  void series_taken_back(session& worker) {
    begin("series taken back");
    sweep_take_back(tried, worker, stride_, series_of_small_elements, 2);
    tell();
  }
  void posted(session& worker) {
    begin("posted after the last one");
    sweep_post(tried, worker, from::last_published, 50 * stride_);
    begin("posted as it falls asleep");
    sweep_post(tried, worker, from::asleep, stride_);
    tell();
  }
  void asked_to_stop(session& worker) {
    begin("asked to stop");
    sweep_stop(tried, worker, 30 * stride_);
    tell();
  }
  void rung_for(session& worker) {
    begin("rung for");
    sweep_doze(tried, worker, stride_);
    tell();
  }

  void rung_for_series(session& worker) {
    begin("rung for behind a series");
    sweep_doze_behind_series(tried, worker, stride_);
    tell();
  }

  void failure() {
    begin("the initializer fails");
    session worker(tried, session::initializer::throws);
    worker.fail();
    tell();
  }

  void departures() {
    begin("told to leave");
    sweep_leave(tried, from::last_published, 100 * stride_);
    sweep_leave(tried, from::asleep, 4 * stride_);
    tell();
  }

  /// The first departures only, at every instruction.
  void hasty_departures() {
    begin("told to leave");
    sweep_leave(tried, from::last_published, 1);
  }

  template <void (lives::*Message)(session&)>
  void only() {
    session worker(tried, session::initializer::counts);
    worker.start_quickly();
    (this->*Message)(worker);
    begin("leave");
    worker.leave();
    tell();
  }

  /// A life that ends with the finalizer.
  void shortest() {
    begin("start and leave");
    session worker(tried, session::initializer::counts);
    worker.start();
    worker.leave();
    tell();
  }

  tally tried;
  std::string doing;

 private:
  void serve(session& worker, std::unique_ptr<message> what, std::size_t collect_every = 0) {
    begin(what->name);
    worker.serve(std::move(what), collect_every);
    tell();
  }

  void begin(std::string what) {
    tell();
    doing = std::move(what);
    begun_ = std::chrono::steady_clock::now();
    before_ = tried;
  }
  void tell() {
    if (doing.empty()) return;
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
    std::printf("  %-28s %8zu kill points, %6zu judged, %6.2f s\n", doing.c_str(),
                tried.kill_points - before_.kill_points, tried.judged - before_.judged, took.count());
    doing.clear();
  }

  const std::size_t stride_;
  const std::size_t times_;
  std::chrono::steady_clock::time_point begun_;
  tally before_;
};

/// Makes memcpy and memset go by vectors: an instruction that repeats itself is stepped byte by byte.
void without_repeating_instructions(char** arguments) {
  constexpr const char* name = "GLIBC_TUNABLES";
  constexpr const char* value =
      "glibc.cpu.x86_rep_movsb_threshold=0x40000000:glibc.cpu.x86_rep_stosb_threshold=0x40000000";
  const char* const seen = std::getenv(name);
  if (seen != nullptr && std::string_view(seen) == value) return;
  ::setenv(name, value, 1);
  ::execv("/proc/self/exe", arguments);
  std::perror("execv /proc/self/exe");
  std::exit(EXIT_FAILURE);
}

/// Runs `what` and says what came of it: 0 all is well, 1 a promise is broken, 2 the test itself failed.
template <class What>
int look_at(lives& looked_at, What what) {
  try {
    what();
    return 0;
  } catch (const violation& found) {
    std::printf("VIOLATION in '%s', after %zu kill points: %s\n", looked_at.doing.c_str(), looked_at.tried.kill_points,
                found.what());
    return 1;
  } catch (const std::exception& failure) {
    std::printf("in '%s': %s\n", looked_at.doing.c_str(), failure.what());
    return 2;
  }
}

#ifdef INSTRUCTIONS_SEEDED
int hunt(mutant wanted) {
  seeded_mutant = wanted;
  lives here(wanted == mutant::none ? 4 : 1, 1);
  const auto search = [&] {
    switch (wanted) {
      case mutant::none:
        here.only<&lives::small>();
        here.only<&lives::series>();
        here.only<&lives::spilled>();
        here.only<&lives::large>();
        here.only<&lives::arrays>();
        here.failure();
        return here.races();
      case mutant::no_claim:
      case mutant::late_claim:
      case mutant::early_publish:
      case mutant::publish_two:
        return here.only<&lives::small>();
      case mutant::series_no_claim:
      case mutant::series_no_end:
      case mutant::series_publish_two:
        return here.only<&lives::series>();
      case mutant::series_no_second_look:
      case mutant::series_no_step_back:
      case mutant::series_stale_chunk:
        return here.only<&lives::series_taken_back>();
      case mutant::no_ring_for_chunk:
        return here.only<&lives::rung_for_series>();
      case mutant::no_wrap:
      case mutant::no_room:
        return here.only<&lives::spilled>();
      case mutant::early_free:
        return here.only<&lives::large>();
      case mutant::late_arrays:
        return here.only<&lives::arrays>();
      case mutant::no_second_look:
      case mutant::no_step_back:
      case mutant::blind_take_back:
      case mutant::stale_slot:
        return here.only<&lives::taken_back>();
      case mutant::late_time:
        return here.only<&lives::asked_to_stop>();
      case mutant::early_ring:
        return here.only<&lives::rung_for>();
      case mutant::blind_sleep:
        return here.only<&lives::posted>();
      case mutant::hasty_leave:
        return here.hasty_departures();
      case mutant::early_ready:
      case mutant::early_left:
        return here.shortest();
      case mutant::torn_failure:
        return here.failure();
    }
  };
  const int status = look_at(here, search);
  if (wanted == mutant::none || status == 2) return status;
  std::puts(status == 1 ? "caught" : "NOT caught");
  return status == 1 ? EXIT_SUCCESS : EXIT_FAILURE;
}
#endif

}  // namespace

int main(int count, char** arguments) {
  without_repeating_instructions(arguments);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::size_t stride = 1;
  std::size_t times = 1;
  std::size_t at_least = 0;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string_view option = arguments[i];
    const char* const value = arguments[i + 1];
    if (option == "--stride") stride = std::strtoul(value, nullptr, 10);
    if (option == "--times") times = std::strtoul(value, nullptr, 10);
    if (option == "--at-least") at_least = std::strtoul(value, nullptr, 10);
#ifdef INSTRUCTIONS_SEEDED
    for (std::size_t m = 0; option == "--mutant" && m != std::size(mutant_names); ++m) {
      if (value == mutant_names[m]) return hunt(static_cast<mutant>(m));
    }
#endif
  }

  lives all(stride, times);
  const int status = look_at(all, [&] { all.all(); });
  const tally& tried = all.tried;
  std::printf(
      "%zu kill points, %zu judged (%zu of them unchanged), %s; %zu races, %zu times something was to be taken back, "
      "%zu "
      "times it came back\n",
      tried.kill_points, tried.judged, tried.rejudged, status == 0 ? "0 lost, doubled, torn or hung" : "FAILED",
      tried.sweeps, tried.taken_back, tried.came_back);
  if (status == 0 && tried.kill_points < at_least) {
    std::printf("too few: %zu are asked for\n", at_least);
    return EXIT_FAILURE;
  }
  return status;
}
