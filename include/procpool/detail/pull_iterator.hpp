// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <iterator>

namespace procpool::detail {

/// The iterator of a range that has one element at a time, which its core holds: core.current(), core.advance() and
/// core.ended(). It points to the core, so it stays good when the range is moved.
template <class Core>
class pull_iterator {
 public:
  using value_type = typename Core::value_type;
  using difference_type = std::ptrdiff_t;
  using iterator_concept = std::input_iterator_tag;

  pull_iterator() = default;
  explicit pull_iterator(Core& core) noexcept : core_(&core) {}

  value_type& operator*() const { return core_->current(); }
  pull_iterator& operator++() {
    core_->advance();
    return *this;
  }
  void operator++(int) { core_->advance(); }

  friend bool operator==(const pull_iterator& it, std::default_sentinel_t) noexcept { return it.core_->ended(); }

 private:
  Core* core_ = nullptr;
};

}  // namespace procpool::detail
