// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <typeindex>
#include <typeinfo>
#include <unordered_map>
#include <utility>

#include <cereal/cereal.hpp>
#include <cereal/types/array.hpp>
#include <cereal/types/atomic.hpp>
#include <cereal/types/base_class.hpp>
#include <cereal/types/bitset.hpp>
#include <cereal/types/chrono.hpp>
#include <cereal/types/common.hpp>
#include <cereal/types/complex.hpp>
#include <cereal/types/deque.hpp>
#include <cereal/types/forward_list.hpp>
#include <cereal/types/functional.hpp>
#include <cereal/types/list.hpp>
#include <cereal/types/map.hpp>
#include <cereal/types/memory.hpp>
#include <cereal/types/optional.hpp>
#include <cereal/types/polymorphic.hpp>
#include <cereal/types/queue.hpp>
#include <cereal/types/set.hpp>
#include <cereal/types/stack.hpp>
#include <cereal/types/string.hpp>
#include <cereal/types/tuple.hpp>
#include <cereal/types/unordered_map.hpp>
#include <cereal/types/unordered_set.hpp>
#include <cereal/types/utility.hpp>
#include <cereal/types/valarray.hpp>
#include <cereal/types/variant.hpp>
#include <cereal/types/vector.hpp>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/detail/codec/demangle.hpp>

namespace procpool::detail {

/// How deep values may lie in each other: a decoder that recursed as deep as the bytes say would overflow its stack.
inline constexpr int max_nesting = 1000;

/// Throws the error of a value that cannot be encoded or decoded.
template <class T>
[[noreturn]] void throw_unserializable(const std::string& what) {
  throw make_error<serialization_error>(what, type_name<T>());
}

/// One level of nesting for as long as it lives.
class nesting {
 public:
  explicit nesting(int& depth) : depth_(depth) {
    if (depth_ >= max_nesting) {
      throw make_error<serialization_error>("values nested more than " + std::to_string(max_nesting) + " deep",
                                            std::string("bytes"));
    }
    ++depth_;
  }
  nesting(const nesting&) = delete;
  nesting& operator=(const nesting&) = delete;
  ~nesting() { --depth_; }

 private:
  int& depth_;
};

/// What cereal's functions write to. Its call operators see each value first and hand cereal only what cereal or the
/// user has functions for: so the elements of everything may be of any kind, and no length is trusted.
class output_archive final : public cereal::OutputArchive<output_archive, cereal::AllowEmptyClassElision> {
 public:
  explicit output_archive(byte_writer& bytes) : base(this), bytes_(bytes) {}

  byte_writer& bytes() noexcept { return bytes_; }
  nesting deeper() { return nesting(depth_); }

  template <class... T>
  output_archive& operator()(T&&... values) {
    (put(values), ...);
    return *this;
  }
  template <class T>
  output_archive& operator&(T&& value) {
    put(value);
    return *this;
  }
  template <class T>
  output_archive& operator<<(T&& value) {
    put(value);
    return *this;
  }

  void saveBinary(const void* data, std::size_t size) { bytes_.write(data, size); }

  /// Straight to cereal: for what it or the user has functions for.
  template <class T>
  void put_by_cereal(T& value) {
    const nesting level(depth_);
    base::operator()(value);
  }

 private:
  using base = cereal::OutputArchive<output_archive, cereal::AllowEmptyClassElision>;

  template <class T>
  void put(T& value);

  byte_writer& bytes_;
  int depth_ = 0;
};

/// What cereal's functions read from.
class input_archive final : public cereal::InputArchive<input_archive, cereal::AllowEmptyClassElision> {
 public:
  explicit input_archive(byte_reader& bytes) : base(this), bytes_(bytes) {}

  byte_reader& bytes() noexcept { return bytes_; }
  nesting deeper() { return nesting(depth_); }

  template <class... T>
  input_archive& operator()(T&&... values) {
    (get(values), ...);
    return *this;
  }
  template <class T>
  input_archive& operator&(T&& value) {
    get(value);
    return *this;
  }
  template <class T>
  input_archive& operator>>(T&& value) {
    get(value);
    return *this;
  }

  void loadBinary(void* data, std::size_t size) { bytes_.read(data, size); }

  /// Straight to cereal: for what it or the user has functions for.
  template <class T>
  void get_by_cereal(T& value) {
    const nesting level(depth_);
    base::operator()(value);
  }

  // cereal casts the pointer that an id stands for to whatever type it expects there; malformed bytes must not make it
  // cast to another one. So the type expected next is noted before it asks.
  void expect_pointee(const std::type_info& type) noexcept { expected_ = &type; }
  std::shared_ptr<void> getSharedPointer(std::uint32_t id) {
    if (id == 0) return nullptr;
    const auto found = pointers_.find(id);
    if (found == pointers_.end() || found->second.type != std::type_index(*expected_)) {
      throw make_error<serialization_error>("decoding: a shared pointer to what is not there",
                                            demangle(expected_->name()));
    }
    return found->second.pointer;
  }
  void registerSharedPointer(std::uint32_t id, std::shared_ptr<void> pointer) {
    pointers_.insert_or_assign(id & ~cereal::detail::msb_32bit,
                               tracked{std::move(pointer), std::type_index(*expected_)});
  }

 private:
  using base = cereal::InputArchive<input_archive, cereal::AllowEmptyClassElision>;

  struct tracked {
    std::shared_ptr<void> pointer;
    std::type_index type;
  };

  template <class T>
  void get(T& value);

  byte_reader& bytes_;
  int depth_ = 0;
  const std::type_info* expected_ = &typeid(void);
  std::unordered_map<std::uint32_t, tracked> pointers_;
};

// What cereal itself processes without asking the call operators: class versions and the results of save_minimal().
template <class T>
  requires std::is_arithmetic_v<T>
void save(output_archive& archive, const T& value) {
  archive.bytes().put(value);
}
template <class T>
  requires std::is_arithmetic_v<T>
void load(input_archive& archive, T& value) {
  archive(value);
}
template <class T>
void serialize(output_archive& archive, cereal::NameValuePair<T>& named) {
  archive(named.value);
}
template <class T>
void serialize(input_archive& archive, cereal::NameValuePair<T>& named) {
  archive(named.value);
}
template <class T>
void save(output_archive& archive, const cereal::BinaryData<T>& data) {
  archive(data);
}
template <class T>
void load(input_archive& archive, cereal::BinaryData<T>& data) {
  archive(data);
}

/// Found before cereal's own, being more special; hands on to it.
template <class T>
void load(input_archive& archive, cereal::memory_detail::PtrWrapper<std::shared_ptr<T>&>& wrapper) {
  archive.expect_pointee(typeid(T));
  cereal::load(archive, wrapper);
}

}  // namespace procpool::detail

CEREAL_SETUP_ARCHIVE_TRAITS(procpool::detail::input_archive, procpool::detail::output_archive)
CEREAL_REGISTER_ARCHIVE(procpool::detail::output_archive)
CEREAL_REGISTER_ARCHIVE(procpool::detail::input_archive)
