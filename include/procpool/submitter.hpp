// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <functional>
#include <iterator>
#include <memory>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/submit.hpp>
#include <procpool/detail/transform_reduce.hpp>
#include <procpool/future.hpp>
#include <procpool/fwd.hpp>
#include <procpool/lazy_results.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>

namespace procpool {

/// The members of a pool that submit tasks. A `process_pool` is one, and `pool.with(options)` returns one.
///
/// A callable, its arguments and the elements of a range are encoded at the call and may change or go afterwards.
/// The callable may be anything that std::invoke takes; R stands for what it returns, decayed. How elements are cut
/// into chunks (`chunksize` elements each; 0: as the pool sees fit) is never observable in results or errors.
/// Errors   of every member, at once: `pool_closed` after close() or terminate(), `pool_broken` when no worker is left
///          and none can be started, std::logic_error in a process that did not construct the pool, and
///          std::invalid_argument for a callable that holds an address in this thread's stack. From every task, whose
///          errors come where the member says: `task_timeout` if it was given a `timeout`.
class submitter {
 public:
  submitter(const submitter&) = delete;
  submitter& operator=(const submitter&) = delete;

  /// Calls `fn(args...)` in a worker.
  /// Blocks   until it has ended.
  /// Errors   what `fn` threw; `worker_crashed`; `serialization_error`, also at the call; see apply_async.
  /// Source   Python's Pool.apply.
  template <class F, class... Args>
    requires detail::invocable_task<F, Args...>
  auto apply(F&& fn, Args&&... args) -> detail::result_of<F, Args...> {
    return detail::submit_call(engine_, options_, "apply", detail::afterwards::watches, fn, std::forward<Args>(args)...)
        .get();
  }

  /// Calls `fn(args...)` in a worker and returns at once with the future of its result.
  /// Errors   at the call: `serialization_error` if an argument cannot be encoded. From the future: what `fn` threw,
  ///          `worker_crashed`, `serialization_error`, `out_of_shared_memory`, `task_cancelled`, `pool_terminated`.
  /// Source   Python's Pool.apply_async, Executor.submit.
  template <class F, class... Args>
    requires detail::invocable_task<F, Args...>
  auto apply_async(F&& fn, Args&&... args) -> future<detail::result_of<F, Args...>> {
    return detail::submit_call(engine_, options_, "apply_async", detail::afterwards::goes_on, fn,
                               std::forward<Args>(args)...);
  }

  /// Calls `fn` with each element of `in` and returns the results in input order; nothing if `fn` returns void.
  /// Shapes   n elements give a vector of n results; n == 0 sends nothing.
  /// Blocks   until every element has ended.
  /// Errors   the error of the first failing element in input order, as a loop would have thrown it: what `fn` threw,
  ///          `worker_crashed`, … Elements behind a failed one that have not started are not run. At the call, with
  ///          nothing run: what taking an element from `in` throws, `serialization_error` if one cannot be encoded.
  /// Source   Python's Pool.map, which throws the first failure to arrive instead.
  template <class F, std::ranges::input_range Range>
    requires detail::maps_over<F, Range>
  auto map(F&& fn, Range&& in, std::size_t chunksize = 0) -> detail::map_result<F, Range> {
    return submit<detail::map_collector, detail::element_call>("map", fn, in, chunksize).get();
  }

  /// The same, without waiting.
  /// Errors   at the call and from the future, as map.
  template <class F, std::ranges::input_range Range>
    requires detail::maps_over<F, Range>
  auto map_async(F&& fn, Range&& in, std::size_t chunksize = 0) -> future<detail::map_result<F, Range>> {
    return submit<detail::map_collector, detail::element_call>("map_async", fn, in, chunksize);
  }

  /// Calls `fn` with each element of `in`, a range of tuples, pairs or arrays, spread over its parameters; else as map.
  template <class F, std::ranges::input_range Range>
    requires detail::starmaps_over<F, Range>
  auto starmap(F&& fn, Range&& in, std::size_t chunksize = 0) -> detail::starmap_result<F, Range> {
    return submit<detail::map_collector, detail::spread_call>("starmap", fn, in, chunksize).get();
  }

  /// The same, without waiting.
  template <class F, std::ranges::input_range Range>
    requires detail::starmaps_over<F, Range>
  auto starmap_async(F&& fn, Range&& in, std::size_t chunksize = 0) -> future<detail::starmap_result<F, Range>> {
    return submit<detail::map_collector, detail::spread_call>("starmap_async", fn, in, chunksize);
  }

  /// Calls `fn` with each element of `in` and returns how each ended, in input order: never throws for a task.
  /// Shapes   n elements give a vector of n outcomes. All are run, also behind a failed one; one that cannot be encoded
  ///          is not run, and its outcome says so.
  /// Blocks   until every element has ended.
  /// Errors   what taking an element from `in` throws, and what `progress` threw.
  template <class F, std::ranges::input_range Range>
    requires detail::maps_over<F, Range>
  auto try_map(F&& fn, Range&& in, std::size_t chunksize = 0) -> detail::try_map_result<F, Range> {
    return submit<detail::collect_outcomes, detail::element_call>("try_map", fn, in, chunksize).get();
  }

  /// The same over a range of tuples, as starmap.
  template <class F, std::ranges::input_range Range>
    requires detail::starmaps_over<F, Range>
  auto try_starmap(F&& fn, Range&& in, std::size_t chunksize = 0) -> detail::try_starmap_result<F, Range> {
    return submit<detail::collect_outcomes, detail::spread_call>("try_starmap", fn, in, chunksize).get();
  }

  /// Calls `fn` with the elements of `in` as they are wanted, and yields the results in input order.
  /// Shapes   `in` may be endless or single-pass: at most `buffersize` elements are taken ahead of what was yielded.
  ///          An lvalue is referred to and must outlive the result; an rvalue is moved into it. For a void `fn` the
  ///          elements are std::monostate.
  /// Errors   at the dereference of its element: what the task ended in, or what cannot be encoded.
  /// Source   Python's Pool.imap, which takes all of its input at once.
  template <class F, std::ranges::viewable_range Range>
    requires std::ranges::input_range<Range> && detail::maps_over<F, Range>
  auto imap(F&& fn, Range&& in, std::size_t chunksize = 1) -> detail::imap_result<F, Range> {
    return submit_lazily<detail::element_call>("imap", fn, std::forward<Range>(in), chunksize, true);
  }

  /// The same, in the order in which the results come.
  template <class F, std::ranges::viewable_range Range>
    requires std::ranges::input_range<Range> && detail::maps_over<F, Range>
  auto imap_unordered(F&& fn, Range&& in, std::size_t chunksize = 1) -> detail::imap_result<F, Range> {
    return submit_lazily<detail::element_call>("imap_unordered", fn, std::forward<Range>(in), chunksize, false);
  }

  /// imap over a range of tuples, as starmap.
  template <class F, std::ranges::viewable_range Range>
    requires std::ranges::input_range<Range> && detail::starmaps_over<F, Range>
  auto istarmap(F&& fn, Range&& in, std::size_t chunksize = 1) -> detail::istarmap_result<F, Range> {
    return submit_lazily<detail::spread_call>("istarmap", fn, std::forward<Range>(in), chunksize, true);
  }

  /// imap_unordered over a range of tuples, as starmap.
  template <class F, std::ranges::viewable_range Range>
    requires std::ranges::input_range<Range> && detail::starmaps_over<F, Range>
  auto istarmap_unordered(F&& fn, Range&& in, std::size_t chunksize = 1) -> detail::istarmap_result<F, Range> {
    return submit_lazily<detail::spread_call>("istarmap_unordered", fn, std::forward<Range>(in), chunksize, false);
  }

  /// Combines `init` and `transform(x)` of every element x of `in` with `reduce`, inside the workers as far as it goes.
  /// Shapes   `init` is used exactly once; an empty range gives `init`. What `reduce` and `transform` return converts
  ///          to T. `reduce` must be associative and commutative, or the result depends on how `in` is cut. Of a
  ///          shared_array nothing is sent but its handle.
  /// Blocks   until every element has ended.
  /// Errors   as map; also what `reduce` throws in this process.
  /// Source   std::transform_reduce.
  template <std::ranges::input_range Range, class T, class Reduce, class Transform>
    requires detail::transform_reduces<Range, T, Reduce, Transform>
  T transform_reduce(Range&& in, T init, Reduce reduce, Transform transform) {
    return detail::submit_transform_reduce(engine_, options_, in, std::move(init), reduce, transform);
  }

  /// Runs `fn(args...)` once in every worker. A worker that is replaced meanwhile counts once.
  /// Blocks   until all have ended; waits for those that are busy.
  /// Errors   the error of the lowest worker index among those that failed.
  template <class F, class... Args>
    requires detail::invocable_task<F, Args...>
  void broadcast(F&& fn, Args&&... args) {
    detail::submit_broadcast(engine_, options_, fn, std::forward<Args>(args)...).get();
  }

 private:
  template <class Transport>
  friend class process_pool;

  submitter(std::shared_ptr<detail::engine> engine, call_options options)
      : engine_(std::move(engine)), options_(std::move(options)) {}

  template <template <class> class Collector, template <class, class> class Task, class F, class Range>
  auto submit(const char* operation, const F& fn, Range& in, std::size_t chunksize) {
    return detail::submit_batch<Collector, Task<F, Range>>(engine_, options_, operation, fn, in, chunksize);
  }
  template <template <class, class> class Task, class F, class Range>
  auto submit_lazily(const char* operation, const F& fn, Range&& in, std::size_t chunksize, bool ordered) {
    return detail::submit_lazily<Task<F, std::views::all_t<Range>>>(engine_, options_, operation, fn,
                                                                    std::forward<Range>(in), chunksize, ordered);
  }

  std::shared_ptr<detail::engine> engine_;  ///< never null while the object is used
  const call_options options_;
};

}  // namespace procpool
