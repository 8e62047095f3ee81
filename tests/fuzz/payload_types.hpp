// SPDX-License-Identifier: BSL-1.0
// Types of every way of travelling, for payload_fuzzer.cpp.
#pragma once

#include <array>
#include <chrono>
#include <complex>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <forward_list>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <stack>
#include <stdexcept>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include <procpool/codec.hpp>
#include <procpool/shared_array.hpp>

#include <cereal/types/polymorphic.hpp>

#include "../support/cereal_types.hpp"

namespace fuzz {

using types::needs_two;
using types::versioned;

struct point {
  int x = 0;
  int y = 0;
};

enum class color : std::uint8_t { red, green };

struct person {  // by fields, recursive
  std::string name;
  std::optional<point> home;
  std::vector<person> friends;
};

struct linked {  // as deep as the bytes say
  std::unique_ptr<linked> next;
  int value = 0;
};

struct flags {  // trivially copyable, but not all bytes are values of it
  bool on = false;
  color shade = color::red;
  double weight = 0;
  std::optional<int> number;
};

struct with_arrays {
  std::string words[2];
  char tag[4];
  bool bits[3];
};

class sealed {  // move-only, by cereal, made by cereal::access
 public:
  static sealed of(int value) {
    sealed made;
    *made.value_ = value;
    return made;
  }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(cereal::make_nvp("value", *value_), texts_);
  }

 private:
  friend class cereal::access;
  sealed() : value_(std::make_unique<int>()) {}
  std::unique_ptr<int> value_;
  std::vector<std::string> texts_{"one"};
};

struct minimal {
  int value = 0;
  template <class Archive>
  std::string save_minimal(const Archive&) const {
    return std::to_string(value);
  }
  template <class Archive>
  void load_minimal(const Archive&, const std::string& text) {
    value = std::stoi(text);
  }
};

struct sized {  // believes the size that it reads, as user code does
  std::vector<std::uint32_t> numbers{1, 2, 3};
  template <class Archive>
  void save(Archive& archive) const {
    archive(cereal::make_size_tag(static_cast<cereal::size_type>(numbers.size())));
    archive(cereal::binary_data(numbers.data(), numbers.size() * sizeof(std::uint32_t)));
  }
  template <class Archive>
  void load(Archive& archive) {
    cereal::size_type size = 0;
    archive(cereal::make_size_tag(size));
    numbers.resize(static_cast<std::size_t>(size));
    archive(cereal::binary_data(numbers.data(), numbers.size() * sizeof(std::uint32_t)));
  }
};

struct nothing {  // encodes to no byte
  template <class Archive>
  void serialize(Archive&) {}
};

struct shape {
  virtual ~shape() = default;
  virtual int corners() const = 0;
};
struct square final : shape {
  int side = 0;
  int corners() const override { return 4; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(side);
  }
};
struct label final : shape {
  std::string text = "text";
  int corners() const override { return 0; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(text);
  }
};

struct pointers {  // pointers to one thing, and of two types
  std::shared_ptr<std::string> text = std::make_shared<std::string>("shared");
  std::shared_ptr<std::string> again = text;
  std::weak_ptr<std::string> weak = text;
  std::shared_ptr<point> corner = std::make_shared<point>();
  template <class Archive>
  void serialize(Archive& archive) {
    archive(text, again, weak, corner);
  }
};

struct own_error : std::runtime_error {
  own_error() : std::runtime_error("own") {}
  explicit own_error(const std::string& what) : std::runtime_error(what) {}
  std::vector<int> details{1, 2, 3};
  template <class Archive>
  void serialize(Archive& archive) {
    archive(details);
  }
};

}  // namespace fuzz

CEREAL_REGISTER_TYPE(fuzz::square)
CEREAL_REGISTER_TYPE(fuzz::label)
CEREAL_REGISTER_POLYMORPHIC_RELATION(fuzz::shape, fuzz::square)
CEREAL_REGISTER_POLYMORPHIC_RELATION(fuzz::shape, fuzz::label)
