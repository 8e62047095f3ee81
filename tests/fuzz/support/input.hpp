// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>

namespace fuzz {

/// What must hold whatever the input is: a finding otherwise.
inline void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: broken: %s\n", what);
  std::abort();
}

/// The bytes of one input, taken from the front. After its end there are zeros, so that every input is a program.
class input {
 public:
  input(const std::uint8_t* data, std::size_t size) noexcept : at_(data), end_(data + size) {}

  bool empty() const noexcept { return at_ == end_; }
  std::uint8_t byte() noexcept { return empty() ? std::uint8_t{0} : *at_++; }
  std::uint32_t below(std::uint32_t bound) noexcept { return byte() % bound; }
  std::uint16_t word() noexcept { return static_cast<std::uint16_t>(byte() | byte() << 8); }
  std::uint64_t number() noexcept {
    std::uint64_t value = 0;
    for (int i = 0; i != 8; ++i) value |= static_cast<std::uint64_t>(byte()) << 8 * i;
    return value;
  }
  std::span<const std::uint8_t> rest() noexcept { return {at_, static_cast<std::size_t>(end_ - at_)}; }

  /// A number of the kind that breaks things: near 0, near `near`, near a power of two, or any.
  std::uint64_t odd_number(std::uint64_t near) noexcept {
    const std::uint8_t how = byte();
    const auto some = static_cast<std::uint64_t>(how >> 3);
    switch (how % 8) {
      case 0:
        return some;
      case 1:
        return near + some;
      case 2:
        return near - some;
      case 3:
        return ~some;
      case 4:
        return std::uint64_t{1} << some;
      case 5:
        return std::uint64_t{1} << (32 + some);
      case 6:
        return (std::uint64_t{1} << (1 + some)) - 1;
      default:
        return number();
    }
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* end_;
};

}  // namespace fuzz
