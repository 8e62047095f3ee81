// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <procpool/detail/bookkeeping.hpp>

namespace procpool::detail {

/// Some of the workers of a pool, by their numbers.
class worker_set {
 public:
  // Worker `i` is a bit of word i / bits.
  static constexpr std::size_t bits = 64;
  static constexpr std::uint64_t bit(std::size_t i) noexcept { return std::uint64_t{1} << i % bits; }
  template <class Visit>
  static void visit_word(std::uint64_t word, std::size_t begin, Visit& visit) {
    for (; word != 0; word &= word - 1) visit(begin + static_cast<std::size_t>(std::countr_zero(word)));
  }

  void insert(std::size_t i) {
    if (i < bits) {
      first_ |= bit(i);
    } else {
      if (i / bits > others_.size()) others_.resize(i / bits);
      others_[i / bits - 1] |= bit(i);
    }
  }
  bool contains(std::size_t i) const noexcept {
    if (i < bits) return (first_ & bit(i)) != 0;
    return i / bits <= others_.size() && (others_[i / bits - 1] & bit(i)) != 0;
  }
  std::size_t size() const noexcept {
    int count = std::popcount(first_);
    for (const std::uint64_t word : others_) count += std::popcount(word);
    return static_cast<std::size_t>(count);
  }
  bool empty() const noexcept {
    return first_ == 0 && std::ranges::all_of(others_, [](std::uint64_t word) { return word == 0; });
  }
  template <class Predicate>
  void erase_if(Predicate predicate) {
    const auto erase = [&](std::size_t i) {
      if (predicate(i)) (i < bits ? first_ : others_[i / bits - 1]) &= ~bit(i);
    };
    for_each(erase);
  }
  void clear() noexcept {
    first_ = 0;
    others_.clear();
  }

  /// In ascending order.
  template <class Visit>
  void for_each(Visit visit) const {
    visit_word(first_, 0, visit);
    for (std::size_t word = 0; word != others_.size(); ++word) visit_word(others_[word], (word + 1) * bits, visit);
  }

 private:
  std::uint64_t first_ = 0;
  bookkeeping_vector<std::uint64_t> others_{};
};

}  // namespace procpool::detail
