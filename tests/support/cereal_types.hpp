// SPDX-License-Identifier: BSL-1.0
// Classes that travel by cereal's functions, for the tests of the codec and its fuzzer.
#pragma once

#include <cstdint>
#include <string>

#include <procpool/codec.hpp>

namespace types {

struct versioned {
  int value = 0;
  std::string text{};
  template <class Archive>
  void serialize(Archive& archive, std::uint32_t version) {
    archive(value);
    if (version >= 3) archive(text);
  }
};

struct needs_two {  // cereal's load_and_construct
  needs_two(int a, int b) : sum(a + b) {}
  template <class Archive>
  void serialize(Archive& archive) {
    archive(sum);
  }
  template <class Archive>
  static void load_and_construct(Archive& archive, cereal::construct<needs_two>& construct) {
    int sum = 0;
    archive(sum);
    construct(sum, 0);
  }
  int sum;
};

}  // namespace types

CEREAL_CLASS_VERSION(types::versioned, 3)
