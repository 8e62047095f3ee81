// SPDX-License-Identifier: BSL-1.0
// Types of every kind that can travel, and of some that cannot.
#pragma once

#include <procpool/codec.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <complex>
#include <cstring>
#include <deque>
#include <forward_list>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <span>
#include <stack>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <valarray>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>
#include <cereal/types/polymorphic.hpp>

#include "cereal_types.hpp"

namespace types {

struct point {
  int x;
  int y;
  bool operator==(const point&) const = default;
};

class meters {  // trivially copyable, no default constructor
 public:
  explicit meters(double value) : value_(value) {}
  bool operator==(const meters&) const = default;

 private:
  double value_;
};

struct person {
  std::string name;
  std::optional<point> home;
  std::vector<person> friends;
  int older(int years) const { return static_cast<int>(name.size()) + years; }
  bool operator==(const person&) const = default;
};

struct with_arrays {  // trivially copyable, with arrays and bits
  char name[16];
  int numbers[2][3];
  unsigned flags : 3;
  unsigned rest : 29;
};

struct named_arrays {  // not trivially copyable, with an array
  std::string words[2];
  char tag[4];
  std::optional<int> number;
  bool operator==(const named_arrays& other) const {
    return words[0] == other.words[0] && words[1] == other.words[1] && std::memcmp(tag, other.tag, 4) == 0 &&
           number == other.number;
  }
};

struct checked_state {  // trivially copyable, but an optional's state is not taken from bytes
  std::optional<int> number;
  bool flag;
  bool operator==(const checked_state&) const = default;
};

struct no_defaults {
  meters length;
  std::string unit;
  const int power = 1;
  bool operator==(const no_defaults&) const = default;
};

struct linked {
  std::unique_ptr<linked> next;
  int value;
};

struct empty {
  bool operator==(const empty&) const = default;
};

class serialized {  // a member
 public:
  serialized() = default;
  serialized(std::string text, std::vector<meters> lengths) : text_(std::move(text)), lengths_(std::move(lengths)) {}
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::make_nvp("text", text_), lengths_);
  }
  bool operator==(const serialized&) const = default;

 private:
  std::string text_;
  std::vector<meters> lengths_;
};

class split {  // save and load outside, made by cereal::access, trivially copyable
 public:
  static split of(int value) {
    split made;
    made.value = value;
    return made;
  }
  int value = 0;
  bool operator==(const split&) const = default;

 private:
  split() = default;
  friend class cereal::access;
};
template <class Archive>
void save(Archive& archive, const split& s) {
  archive(s.value + 1);
}
template <class Archive>
void load(Archive& archive, split& s) {
  archive(s.value);
  s.value -= 1;
}

struct minimal {
  int value = 0;
  std::string private_note{};
  template <class Archive>
  std::string save_minimal(const Archive&) const {
    return std::to_string(value);
  }
  template <class Archive>
  void load_minimal(const Archive&, const std::string& text) {
    value = std::stoi(text);
  }
};

struct no_bytes {  // encodes to nothing
  template <class Archive>
  void serialize(Archive&) {}
  bool operator==(const no_bytes&) const = default;
};

struct all_sorts {  // what a serialize() may hand to the archive
  std::atomic<int> counter{0};
  int raw[3]{};
  std::map<int, point> points{};
  std::vector<bool> bits{};
  point corner{};
  std::uint8_t blob[4]{};

  all_sorts() = default;
  all_sorts(all_sorts&& other) noexcept
      : counter(other.counter.load()),
        points(std::move(other.points)),
        bits(std::move(other.bits)),
        corner(other.corner) {
    std::copy(std::begin(other.raw), std::end(other.raw), raw);
    std::copy(std::begin(other.blob), std::end(other.blob), blob);
  }
  template <class Archive>
  void serialize(Archive& archive) {
    archive & counter;
    archive(raw, points, cereal::defer(bits));
    archive(cereal::make_nvp("corner", corner), cereal::binary_data(blob, sizeof(blob)));
  }
};

struct throwing {
  bool on_save = false;
  template <class Archive>
  void save(Archive& archive) const {
    if (on_save) throw std::runtime_error("cannot be saved today");
    archive(on_save);
  }
  template <class Archive>
  void load(Archive&) {
    throw std::runtime_error("cannot be loaded today");
  }
};

struct shape {
  virtual ~shape() = default;
  virtual int corners() const = 0;
};
struct square : shape {
  int side = 0;
  int corners() const override { return 4 + side; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(side);
  }
};

enum class color : std::uint8_t { red, green };

union number {
  int i;
  float f;
};

}  // namespace types

CEREAL_REGISTER_TYPE(types::square)
CEREAL_REGISTER_POLYMORPHIC_RELATION(types::shape, types::square)

template <>
struct procpool::trivially_transferable<types::number> : std::true_type {};
