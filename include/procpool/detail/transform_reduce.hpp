// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/codec/callable.hpp>
#include <procpool/detail/submit.hpp>
#include <procpool/shared_array.hpp>

namespace procpool::detail {

// ---- what a batch of elements is sent as ---------------------------------------------------------------------------

/// An element as it lies in a vector that is sent, and as it is handed to `transform`: views cannot be sent inside of
/// other types, so the owner of their contents is.
template <class U>
struct batch_element {
  using sent = U;
  template <class Element>
  static sent own(Element&& element) {
    return as_value<U>(std::forward<Element>(element));
  }
  static U&& restore(U& element) { return static_cast<U&&>(element); }
  static U restore(auto proxy) { return static_cast<U>(proxy); }
};
template <class C, class Traits>
struct batch_element<std::basic_string_view<C, Traits>> {
  using sent = std::basic_string<C, Traits>;
  static sent own(std::basic_string_view<C, Traits> element) { return sent(element); }
  static std::basic_string_view<C, Traits> restore(const sent& element) { return element; }
};
template <>
struct batch_element<const char*> {
  using sent = std::string;
  static sent own(const char* element) {
    if (element == nullptr) throw_unserializable<const char*>("encoding: a null const char*");
    return element;
  }
  static const char* restore(const sent& element) { return element.c_str(); }
};
template <class U, std::size_t N>
struct batch_element<std::span<const U, N>> {
  using sent = std::vector<U>;
  static sent own(std::span<const U, N> element) { return sent(element.begin(), element.end()); }
  static std::span<const U, N> restore(const sent& element) {
    return std::span<const U, N>(element.data(), element.size());
  }
};

/// Elements that go by their bytes are read where the batch lies in the message.
template <class U>
inline constexpr bool batched_in_place = [] {
  if constexpr (std::is_same_v<U, bool> || !std::is_trivially_copyable_v<U> || std::is_pointer_v<U>) {
    return false;
  } else {
    return route_of<U> == route::by_bytes && alignof(U) <= payload_alignment;
  }
}();

template <class U>
using batch_of =
    std::conditional_t<batched_in_place<U>, std::span<const U>, std::vector<typename batch_element<U>::sent>>;

/// What a worker does with a batch, which is never empty: transforms and reduces it to one T.
template <class T, class U, class Reduce, class Transform>
struct batch_reducer {
  Reduce reduce;
  Transform transform;

  T operator()(std::span<const U> batch)
    requires batched_in_place<U>
  {
    return fold(batch, [](const U& element) { return U(element); });
  }
  T operator()(std::vector<typename batch_element<U>::sent> batch) {
    return fold(batch, [](auto&& element) -> decltype(auto) { return batch_element<U>::restore(element); });
  }
  T operator()(const shared_array<U>& array, std::size_t begin, std::size_t count)
    requires std::is_trivially_copyable_v<U>
  {
    return fold(std::span<U>(array.data() + begin, count), [](U& element) -> U& { return element; });
  }

 private:
  /// In order, but by fours: they do not wait for each other's sums.
  template <class Batch, class Restore>
  T fold(Batch&& batch, Restore restore) {
    auto at = batch.begin();
    const auto end = batch.end();
    const auto next = [&] {
      T one = static_cast<T>(std::invoke(transform, restore(*at)));
      ++at;
      return one;
    };
    const auto both = [&](T& a, T& b) { return static_cast<T>(std::invoke(reduce, std::move(a), std::move(b))); };
    T sum = next();
    while (end - at >= 4) {
      T a = next();
      T b = next();
      T c = next();
      T d = next();
      T ab = both(a, b);
      T cd = both(c, d);
      T four = both(ab, cd);
      sum = both(sum, four);
    }
    while (at != end) {
      T one = next();
      sum = both(sum, one);
    }
    return sum;
  }
};

/// Its two callables travel each in its own way, and what is refused of one is refused here.
template <class T, class U, class Reduce, class Transform>
inline constexpr callable_route callable_route_of<batch_reducer<T, U, Reduce, Transform>> =
    check_callable<Reduce>() && check_callable<Transform>() ? callable_route::by_fields : callable_route::unsupported;

template <class T, class U, class Reduce, class Transform>
struct callable_codec<batch_reducer<T, U, Reduce, Transform>> {
  static void put(byte_writer& bytes, const batch_reducer<T, U, Reduce, Transform>& both) {
    callable_codec<Reduce>::put(bytes, both.reduce);
    callable_codec<Transform>::put(bytes, both.transform);
  }
  static batch_reducer<T, U, Reduce, Transform> get(byte_reader& bytes) {
    return {callable_codec<Reduce>::get(bytes), callable_codec<Transform>::get(bytes)};
  }
};

template <class Range>
using transformed_element = std::conditional_t<is_shared_array<std::remove_cvref_t<Range>>,
                                               std::ranges::range_reference_t<Range>, std::decay_t<element_of<Range>>>;

template <class Range, class T, class Reduce, class Transform>
concept transform_reduces =
    std::movable<T> && std::invocable<Transform&, transformed_element<Range>> &&
    std::convertible_to<std::invoke_result_t<Transform&, transformed_element<Range>>, T> &&
    std::invocable<Reduce&, T, T> && std::convertible_to<std::invoke_result_t<Reduce&, T, T>, T>;

// ---- cutting a range into batches ----------------------------------------------------------------------------------

/// Takes the batches one after the other, each as an element of a job in a chunk of its own.
class batch_list {
 public:
  template <class Write>
  void add(std::size_t elements, Write write) {
    const inputs_ptr block(new inputs);
    write(static_cast<byte_writer&>(block->bytes));
    block->end_element();
    chunks.push_back({.arguments = block, .first = chunks.size(), .count = 1});
    total += elements;
  }

  std::vector<chunk> chunks;
  std::size_t total = 0;  ///< elements of the range
};

template <class Task, class Range>
void add_batches(batch_list& batches, Range& in, std::size_t processes) {
  using element = std::decay_t<element_of<Range>>;
  const auto cut = [&](std::size_t size, auto send) {
    const std::size_t each = automatic_chunksize(size, processes);
    for (std::size_t begin = 0; begin < size; begin += each) send(begin, std::min(each, size - begin));
  };
  if constexpr (is_shared_array<std::remove_cvref_t<Range>>) {
    cut(in.size(), [&](std::size_t begin, std::size_t count) {
      batches.add(count, [&](byte_writer& to) { Task::encode_arguments(to, in, begin, count); });
    });
  } else if constexpr (batched_in_place<element> && std::ranges::contiguous_range<Range> &&
                       std::ranges::sized_range<Range>) {
    const std::span<const element> all(std::ranges::data(in), static_cast<std::size_t>(std::ranges::size(in)));
    cut(all.size(), [&](std::size_t begin, std::size_t count) {
      batches.add(count, [&](byte_writer& to) { Task::encode_arguments(to, all.subspan(begin, count)); });
    });
  } else {
    std::optional<std::size_t> size;
    if constexpr (std::ranges::sized_range<Range>) size = static_cast<std::size_t>(std::ranges::size(in));
    std::vector<typename batch_element<element>::sent> gathered;
    const auto send = [&] {
      if (gathered.empty()) return;
      batches.add(gathered.size(), [&](byte_writer& to) {
        Task::encode_arguments(to, static_cast<batch_of<element>>(std::move(gathered)));
      });
      gathered.clear();
    };
    for (auto&& each : in) {
      gathered.push_back(batch_element<element>::own(std::forward<decltype(each)>(each)));
      if (gathered.size() >= automatic_chunksize(size.value_or(batches.total), processes)) send();
    }
    send();
  }
}

/// The call that a batch of a range travels as.
template <class Range, class Reducer>
struct batch_call {
  using type = call<Reducer, batch_of<std::decay_t<element_of<Range>>>>;
};
template <class U, class Reducer>
struct batch_call<shared_array<U>, Reducer> {
  using type = call<Reducer, shared_array<U>, std::size_t, std::size_t>;
};

template <class Range, class T, class Reduce, class Transform>
T submit_transform_reduce(const engine_ptr& home, const call_options& options, Range& in, T init, Reduce& reduce,
                          Transform& transform) {
  using element = std::decay_t<element_of<Range>>;
  using reducer = batch_reducer<T, element, Reduce, Transform>;
  using task = typename batch_call<std::remove_cvref_t<Range>, reducer>::type;
  constexpr const char* operation = "transform_reduce";
  require_open(*home, operation);
  batch_list batches;
  {
    const encoding_for encoding(home->memory_for_arguments());
    add_batches<task>(batches, in, home->processes());
  }
  const std::size_t parts = batches.chunks.size();
  auto progress = options.progress;
  if (progress) {  // told of batches, it tells of elements
    progress = [&call = options.progress, parts, elements = batches.total](std::size_t done, std::size_t) {
      call(done * elements / parts, elements);
    };
  }
  const batch_ptr<collect_values<T>> batch(
      new batch_job<collect_values<T>>(home, task::code, operation, parts, std::move(progress)));
  batch->limits = limits_of(options);
  batch->stop_on_failure = true;
  task::encode_callable(batch->callable, reducer{reduce, transform});
  if (parts == 0) return init;
  submit_chunks(*home, batch.get(), batches.chunks);
  for (T& part : future_of(batch).get()) {
    init = static_cast<T>(std::invoke(reduce, std::move(init), std::move(part)));
  }
  return init;
}

}  // namespace procpool::detail
