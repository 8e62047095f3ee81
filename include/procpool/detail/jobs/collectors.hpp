// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstring>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/codec/value.hpp>
#include <procpool/outcome.hpp>

namespace procpool::detail {

/// Room for one R that several threads may fill, each its own, before all are moved into a vector. R need not be
/// default-constructible, and one bit of a vector<bool> is no object of its own.
template <class R>
class slots {
  static constexpr bool in_place = std::is_trivially_default_constructible_v<R> && std::is_trivially_copyable_v<R> &&
                                   std::is_copy_assignable_v<R> && !std::is_same_v<R, bool>;

 public:
  explicit slots(std::size_t n) : slots_(n) {}

  void put(std::size_t i, R&& value) { slots_[i] = std::move(value); }

  /// The same for `count` values from `first` on, given by their bytes, any of which are values.
  static constexpr bool takes_bytes = [] {
    if constexpr (in_place) {
      return any_bytes_do<R>;
    } else {
      return false;
    }
  }();
  void put_bytes(std::size_t first, std::size_t count, const std::byte* values) noexcept
    requires takes_bytes
  {
    std::memcpy(static_cast<void*>(slots_.data() + first), values, count * sizeof(R));
  }

  /// Every slot has been filled.
  std::vector<R> take() {
    if constexpr (in_place) {
      return std::move(slots_);
    } else {
      std::vector<R> all;
      all.reserve(slots_.size());
      for (std::optional<R>& slot : slots_) all.push_back(*std::move(slot));
      return all;
    }
  }

 private:
  std::vector<std::conditional_t<in_place, R, std::optional<R>>> slots_;
};

// What becomes of the outcomes of a batch's elements: `element` is what a task returns, `result` what the future holds.
// put(), or put_bytes() where there is that, is called once for each element, for different ones in several threads at
// once; then take(), once.
// A collector that keeps errors makes them part of the result; for the others the first one is the future's.

/// The values in input order: map.
template <class R>
struct collect_values {
  using element = R;
  using result = std::vector<R>;
  static constexpr bool keeps_errors = false;

  explicit collect_values(std::size_t n) : values(n) {}
  void put(std::size_t i, outcome<R>&& value) { values.put(i, *std::move(value)); }
  void put_bytes(std::size_t first, std::size_t count, const std::byte* bytes) noexcept
    requires slots<R>::takes_bytes
  {
    values.put_bytes(first, count, bytes);
  }
  result take() { return values.take(); }

  slots<R> values;
};

/// Nothing: map of a void task, broadcast.
template <class R>
struct collect_nothing {
  using element = R;
  using result = void;
  static constexpr bool keeps_errors = false;

  explicit collect_nothing(std::size_t) {}
  void put(std::size_t, outcome<R>&&) {}
  void take() {}
};

/// The one value of a batch of one: apply.
template <class R>
struct collect_one {
  using element = R;
  using result = R;
  static constexpr bool keeps_errors = false;

  explicit collect_one(std::size_t) {}
  void put(std::size_t, outcome<R>&& got) { value.emplace(*std::move(got)); }
  result take() { return *std::move(value); }

  std::optional<R> value;
};

/// A value or an error for each element: try_map.
template <class R>
struct collect_outcomes {
  using element = R;
  using result = std::vector<outcome<R>>;
  static constexpr bool keeps_errors = true;

  explicit collect_outcomes(std::size_t n) : outcomes(n) {}
  void put(std::size_t i, outcome<R>&& got) { outcomes.put(i, std::move(got)); }
  result take() { return outcomes.take(); }

  slots<outcome<R>> outcomes;
};

template <class R>
using map_collector = std::conditional_t<std::is_void_v<R>, collect_nothing<R>, collect_values<R>>;
template <class R>
using apply_collector = std::conditional_t<std::is_void_v<R>, collect_nothing<R>, collect_one<R>>;

}  // namespace procpool::detail
