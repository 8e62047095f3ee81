// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <boost/smart_ptr/intrusive_ptr.hpp>

#include <procpool/detail/codec/call.hpp>
#include <procpool/detail/encode_inputs.hpp>
#include <procpool/detail/engine.hpp>
#include <procpool/detail/jobs/batch_job.hpp>
#include <procpool/detail/jobs/call_job.hpp>
#include <procpool/detail/jobs/collectors.hpp>
#include <procpool/detail/lazy_source.hpp>
#include <procpool/future.hpp>
#include <procpool/lazy_results.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

using engine_ptr = std::shared_ptr<engine>;

template <class F, class... Args>
concept invocable_task = callable_with<std::decay_t<F>, std::decay_t<Args>...>;
template <class F, class... Args>
using call_of = call<std::decay_t<F>, std::decay_t<Args>...>;
template <class F, class... Args>
using result_of = typename call_of<F, Args...>::result_type;

// How the elements of a range become the arguments of calls: as they are (map), or spread out (starmap).
template <class F, class Range>
concept maps_over = invocable_task<F, element_of<Range>>;
template <class F, class Range>
concept starmaps_over = callable_with_tuple<std::decay_t<F>, element_of<Range>>;

template <class F, class Range>
struct element_call : call_of<F, element_of<Range>> {
  /// Whether the elements are numbers that arrive as what they are.
  template <class Elements>
  static constexpr bool sent_as_they_are =
      std::ranges::sized_range<Elements> && std::is_arithmetic_v<element_of<Elements>> &&
      std::is_same_v<typename element_call::arriving, std::tuple<element_of<Elements>>>;

  template <class Element>
  static void encode_element(byte_writer& to, Element&& element) {
    element_call::encode_arguments(to, as_value<element_of<Range>>(std::forward<Element>(element)));
  }
};
template <class F, class Range>
struct spread_call : call_with_tuple<std::decay_t<F>, element_of<Range>> {
  template <class>
  static constexpr bool sent_as_they_are = false;

  template <class Element>
  static void encode_element(byte_writer& to, Element&& element) {
    encode_tuple_arguments<std::decay_t<F>>(to, as_value<element_of<Range>>(std::forward<Element>(element)));
  }
};

// What the members return.
template <class F, class Range>
using map_result = typename map_collector<typename element_call<F, Range>::result_type>::result;
template <class F, class Range>
using starmap_result = typename map_collector<typename spread_call<F, Range>::result_type>::result;
template <class F, class Range>
using try_map_result = std::vector<outcome<typename element_call<F, Range>::result_type>>;
template <class F, class Range>
using try_starmap_result = std::vector<outcome<typename spread_call<F, Range>::result_type>>;
template <class F, class Range>
using imap_result = lazy_results<typename element_call<F, Range>::result_type>;
template <class F, class Range>
using istarmap_result = lazy_results<typename spread_call<F, Range>::result_type>;

/// Throws what submitting would throw now, before anything is done for it.
inline void require_open(engine& home, const char* operation) {
  home.require_owned(operation);
  home.submit({});
}

/// Hands the chunks of a job to the engine.
inline void submit_chunks(engine& home, const job_ptr& target, std::vector<chunk>& chunks) {
  for (chunk& each : chunks) each.target = target;
  home.submit(chunks);
}

template <class Collector>
using batch_ptr = boost::intrusive_ptr<batch_job<Collector>>;

template <class Collector>
auto future_of(const batch_ptr<Collector>& batch) {
  using result = typename Collector::result;
  return make_future<result>(future_state_ptr<result>(batch.get()));
}

inline task_limits limits_of(const call_options& options) noexcept {
  return {.timeout = options.timeout, .grace = options.grace, .retries = options.retries};
}

/// apply: one call, without what a batch needs.
template <class F, class... Args>
auto submit_call(const engine_ptr& home, const call_options& options, const char* operation, afterwards next,
                 const F& fn, Args&&... args) -> future<result_of<F, Args...>> {
  using task = call_of<F, Args...>;
  using result = typename task::result_type;
  home->require_owned(operation);
  constexpr bool adopt = false;  // for an intrusive_ptr: a reference that is counted already
  chunk only{.count = 1};
  if (options.progress) {
    const inputs_ptr arguments(new inputs);
    {
      const encoding_for encoding(home->memory_for_arguments());
      task::encode_arguments(arguments->bytes, std::forward<Args>(args)...);
    }
    arguments->end_element();
    only.arguments = arguments;
    const batch_ptr<apply_collector<result>> batch(
        new batch_job<apply_collector<result>>(home, task::code, operation, 1, options.progress));
    batch->limits = limits_of(options);
    task::encode_callable(batch->callable, fn);
    only.target = batch.get();
    home->submit({&only, 1}, next);
    return future_of(batch);
  }
  boost::intrusive_ptr<call_job<result>> one(new call_job<result>(home, task::code, operation), adopt);
  one->limits = limits_of(options);
  {
    const encoding_for encoding(home->memory_for_arguments());
    task::encode_callable(one->bytes, fn);
    one->end_callable();
    task::encode_arguments(one->bytes, std::forward<Args>(args)...);
  }
  one->retain_unshared(2);
  only.target = job_ptr(one.get(), adopt);
  only.arguments = arguments_ptr(one.get(), adopt);
  home->submit({&only, 1}, next);
  return make_future<result>(future_state_ptr<result>(one.detach(), adopt));
}

/// chunk_sizes::together of a task.
template <class Task>
inline constexpr std::size_t together = Task::series_size == 0 ? 1 : elements_together(sizeof(typename Task::arriving));

/// The inputs of a batch, encoded: block by block where they are numbers of one kind, else element by element.
template <class Task, class Range>
encoded_inputs encode_batch(Range& in, std::size_t chunksize, std::size_t processes, bool keep_refused) {
  const chunk_sizes sizes{chunksize, processes, together<Task>};
  if constexpr (Task::template sent_as_they_are<Range>) {
    using number = element_of<Range>;
    return encode_uniform_inputs(in, sizes, sizeof(number), [](std::byte* to, auto& from, std::size_t n) {
      if constexpr (std::ranges::contiguous_range<Range>) {
        std::memcpy(to, std::to_address(from), n * sizeof(number));
        from += static_cast<std::ranges::range_difference_t<Range>>(n);
      } else {
        for (std::size_t i = 0; i != n; ++i, ++from) {
          const number value = *from;
          std::memcpy(to + i * sizeof(number), &value, sizeof(number));
        }
      }
    });
  } else {
    return encode_inputs(in, sizes, keep_refused, []<class Element>(byte_writer& to, Element&& element) {
      Task::encode_element(to, std::forward<Element>(element));
    });
  }
}

/// map and its kin: `Task` says how an element is called, Collector what becomes of the results.
template <template <class> class Collector, class Task, class F, class Range>
auto submit_batch(const engine_ptr& home, const call_options& options, const char* operation, const F& fn, Range& in,
                  std::size_t chunksize) {
  using collector = Collector<typename Task::result_type>;
  require_open(*home, operation);
  encoded_inputs all = [&] {
    const encoding_for encoding(home->memory_for_arguments());
    return encode_batch<Task>(in, chunksize, home->processes(), collector::keeps_errors);
  }();
  const batch_ptr<collector> batch(new batch_job<collector>(home, Task::code, operation, all.total, options.progress));
  batch->limits = limits_of(options);
  batch->stop_on_failure = !collector::keeps_errors;
  batch->series_size = Task::series_size;
  batch->awaited_together = !options.progress;
  Task::encode_callable(batch->callable, fn);
  if (all.total == 0) batch->settle_empty();
  if (!all.chunks.empty()) submit_chunks(*home, batch.get(), all.chunks);
  for (encoded_inputs::refusal& each : all.refused) batch->refuse(each.element, std::move(each.why));
  return future_of(batch);
}

/// broadcast: the same call as an element for each worker.
template <class F, class... Args>
future<void> submit_broadcast(const engine_ptr& home, const call_options& options, const F& fn, Args&&... args) {
  using task = call_of<F, Args...>;
  using collector = collect_nothing<typename task::result_type>;
  constexpr const char* operation = "broadcast";
  home->require_owned(operation);
  const inputs_ptr same(new inputs);
  {
    const encoding_for encoding(home->memory_for_arguments());
    task::encode_arguments(same->bytes, std::forward<Args>(args)...);
  }
  same->end_element();
  const std::size_t workers = home->processes();
  const batch_ptr<collector> batch(new batch_job<collector>(home, task::code, operation, workers, options.progress));
  batch->limits = limits_of(options);
  task::encode_callable(batch->callable, fn);
  std::vector<chunk> chunks(workers);
  for (std::size_t i = 0; i != workers; ++i) {
    chunks[i] = {.arguments = same, .first = i, .count = 1, .lane = static_cast<int>(i)};
  }
  submit_chunks(*home, batch.get(), chunks);
  return future_of(batch);
}

/// imap and its kin: pulls from the range, which it owns or refers to as std::views::all does.
template <class Task, class View>
class range_source final : public lazy_source<typename Task::result_type> {
 public:
  template <class F, class Range>
  range_source(const char* operation, const F& fn, Range&& range)
      : lazy_source<typename Task::result_type>(Task::code, operation, Task::series_size, together<Task>),
        view_(std::views::all(std::forward<Range>(range))) {
    Task::encode_callable(this->callable, fn);
  }

  pulled pull_next(byte_writer& arguments) override {
    // The step to the next element is put off until it is wanted: it may read a file or wait for somebody.
    if (at_) {
      ++*at_;
    } else {
      at_.emplace(std::ranges::begin(view_));
    }
    if (*at_ == std::ranges::end(view_)) return {pulled::kind::end};
    auto&& element = **at_;
    try {
      Task::encode_element(arguments, std::forward<decltype(element)>(element));
    } catch (const abi::__forced_unwind&) {
      throw;
    } catch (...) {
      return {pulled::kind::unencodable, std::current_exception()};
    }
    return {pulled::kind::element};
  }

 private:
  View view_;
  std::optional<std::ranges::iterator_t<View>> at_;  // declared behind what it points into
};

template <class Task, class F, class Range>
auto submit_lazily(const engine_ptr& home, const call_options& options, const char* operation, const F& fn,
                   Range&& range, std::size_t chunksize, bool ordered) {
  using result = typename Task::result_type;
  require_open(*home, operation);
  return lazy_results<result>(
      home, std::make_unique<range_source<Task, std::views::all_t<Range>>>(operation, fn, std::forward<Range>(range)),
      {.buffersize = options.buffersize,
       .chunksize = chunksize,
       .ordered = ordered,
       .progress = options.progress,
       .limits = limits_of(options)});
}

}  // namespace procpool::detail
