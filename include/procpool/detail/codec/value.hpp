// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <memory>
#include <new>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/codec/archive.hpp>
#include <procpool/detail/codec/code_map.hpp>
#include <procpool/detail/codec/fields.hpp>
#include <procpool/detail/codec/gate.hpp>

namespace procpool::detail {

// ---- which way a type goes -----------------------------------------------------------------------------------------

enum class route {
  by_handle,  ///< shared_array
  by_bytes,   ///< trivially copyable, without addresses
  by_parts,   ///< of the standard library, by code of ours
  by_cereal,  ///< by functions of cereal's or the user's
  by_fields,  ///< aggregates
  unsupported,
};

// clang-format off
/// Types of the standard library that code of ours encodes, so that elements need no default constructor and no length
/// is believed. The others go through cereal's functions.
template <class T> inline constexpr bool by_own_code = false;
template <class T, class A> inline constexpr bool by_own_code<std::vector<T, A>> = true;
template <class T, class A> inline constexpr bool by_own_code<std::deque<T, A>> = true;
template <class T, class A> inline constexpr bool by_own_code<std::list<T, A>> = true;
template <class T, class A> inline constexpr bool by_own_code<std::forward_list<T, A>> = true;
template <class T, std::size_t N> inline constexpr bool by_own_code<std::array<T, N>> = true;
template <class T> inline constexpr bool by_own_code<std::valarray<T>> = true;
template <class T, class C, class A> inline constexpr bool by_own_code<std::set<T, C, A>> = true;
template <class T, class C, class A> inline constexpr bool by_own_code<std::multiset<T, C, A>> = true;
template <class K, class T, class C, class A> inline constexpr bool by_own_code<std::map<K, T, C, A>> = true;
template <class K, class T, class C, class A> inline constexpr bool by_own_code<std::multimap<K, T, C, A>> = true;
template <class T, class H, class E, class A> inline constexpr bool by_own_code<std::unordered_set<T, H, E, A>> = true;
template <class T, class H, class E, class A>
inline constexpr bool by_own_code<std::unordered_multiset<T, H, E, A>> = true;
template <class K, class T, class H, class E, class A>
inline constexpr bool by_own_code<std::unordered_map<K, T, H, E, A>> = true;
template <class K, class T, class H, class E, class A>
inline constexpr bool by_own_code<std::unordered_multimap<K, T, H, E, A>> = true;
template <class A, class B> inline constexpr bool by_own_code<std::pair<A, B>> = true;
template <class... T> inline constexpr bool by_own_code<std::tuple<T...>> = true;
template <class T> inline constexpr bool by_own_code<std::optional<T>> = true;
template <class... T> inline constexpr bool by_own_code<std::variant<T...>> = true;
template <class C, class T, class A> inline constexpr bool by_own_code<std::basic_string<C, T, A>> = true;
template <class T> inline constexpr bool by_own_code<std::unique_ptr<T>> =
    is_plain_unique_ptr<std::unique_ptr<T>> && std::is_move_constructible_v<T> &&
    (std::is_scalar_v<T> || parts_of<std::remove_cv_t<T>>::known || !has_cereal_functions<std::remove_cv_t<T>>);

/// Types with states of their own, which bytes from a stranger must not set: never by bytes, nor what holds them.
template <class T> inline constexpr bool has_checked_state = false;
template <class T> inline constexpr bool has_checked_state<std::optional<T>> = true;
template <class... T> inline constexpr bool has_checked_state<std::variant<T...>> = true;
template <class T, std::size_t N> inline constexpr bool has_checked_state<std::array<T, N>> = has_checked_state<T>;
// clang-format on

struct holds_checked_state {
  template <class T>
  static consteval bool test() {
    if constexpr (has_checked_state<T>) {
      return true;
    } else if constexpr (std::is_class_v<T> && std::is_aggregate_v<T> && bytewise_copyable<T> && !parts_of<T>::known &&
                         !trivially_transferable<T>::value && !has_base<T> && !has_cereal_functions<T>) {
      return has_field_where<T, holds_checked_state>();
    } else {
      return false;
    }
  }
  template <class T>
  static constexpr bool holds = test<T>();
};

template <class T>
consteval route route_for() {
  if constexpr (refusal_of<T> != refusal::none) {
    return route::unsupported;
  } else if constexpr (std::is_scalar_v<T>) {
    return route::by_bytes;
  } else if constexpr (is_shared_array<T>) {
    return route::by_handle;
  } else if constexpr (bytewise_copyable<T> && trivially_transferable<T>::value) {
    return route::by_bytes;
  } else if constexpr (parts_of<T>::known) {
    if constexpr (bytewise_copyable<T> && std::is_move_constructible_v<T> && !has_checked_state<T>) {
      // std::array of an element that goes by bytes, std::complex, durations: but an element may have other ways.
      constexpr bool flat = []<class... P>(type_list<P...>) {
        return ((route_for<P>() == route::by_bytes) && ...);
      }(typename parts_of<T>::types());
      if constexpr (flat) return route::by_bytes;
    }
    return by_own_code<T> ? route::by_parts : route::by_cereal;
  } else if constexpr (has_cereal_functions<T>) {
    return route::by_cereal;
  } else if constexpr (bytewise_copyable<T> && !holds_checked_state::holds<T>) {
    return route::by_bytes;
  } else {
    return route::by_fields;
  }
}

/// The way T goes; references and cv-qualifiers are the caller's to remove.
template <class T>
inline constexpr route route_of = route_for<T>();

template <class T, class... Seen>
consteval bool runs_own_code_only() {
  if constexpr ((std::is_same_v<T, Seen> || ...)) {
    return false;  // recursive: how deep it lies has to be counted, which the archives do
  } else if constexpr (route_of<T> == route::by_bytes || route_of<T> == route::by_handle) {
    return true;
  } else if constexpr (route_of<T> == route::by_parts) {
    if constexpr (requires { typename T::key_type; }) {
      return false;  // compares or hashes by code that may be the user's
    } else {
      return []<class... P>(type_list<P...>) {
        return (runs_own_code_only<std::remove_cv_t<P>, T, Seen...>() && ...);
      }(typename parts_of<T>::types());
    }
  } else if constexpr (route_of<T> == route::by_fields) {
    return with_field_types<T>(
        []<class... Fields>() { return (runs_own_code_only<std::remove_all_extents_t<Fields>, T, Seen...>() && ...); });
  } else {
    return false;
  }
}

/// decode<T> runs neither cereal's code nor the user's and fetches every byte once: it may read memory that is being
/// changed by somebody else, and yields garbage values at worst.
template <class T>
inline constexpr bool decodes_in_place = runs_own_code_only<T>();

// ---- sinks and sources ---------------------------------------------------------------------------------------------

// What code of ours reads and writes through: the archives, where a value in the value may need them, else only this.
struct no_nesting {
  ~no_nesting() {}  // not trivial: a guard in name is used
};

class plain_output {
 public:
  explicit plain_output(byte_writer& bytes) noexcept : bytes_(bytes) {}
  byte_writer& bytes() noexcept { return bytes_; }
  no_nesting deeper() noexcept { return {}; }

 private:
  byte_writer& bytes_;
};

class plain_input {
 public:
  explicit plain_input(byte_reader& bytes) noexcept : bytes_(bytes) {}
  byte_reader& bytes() noexcept { return bytes_; }
  no_nesting deeper() noexcept { return {}; }

 private:
  byte_reader& bytes_;
};

/// How T is written and read: put(output, value) and get(input) -> T.
template <class T, route Route = route_of<T>>
struct codec;

template <class T, class Out>
void put_value(Out& out, const T& value) {
  codec<T>::put(out, value);
}

template <class T, class In>
T get_value(In& in) {
  return codec<T>::get(in);
}

// ---- by bytes ------------------------------------------------------------------------------------------------------

/// Throws unless the bytes are a value of T, which not all are of bool and of code addresses.
template <class T>
void check_representation(const void* bytes) {
  if constexpr (std::is_same_v<T, bool>) {
    unsigned char byte = 0;
    std::memcpy(&byte, bytes, 1);
    if (byte > 1) throw_unserializable<T>("decoding: a bool that is neither true nor false");
  } else if constexpr (std::is_pointer_v<T>) {
    std::uintptr_t address = 0;
    std::memcpy(&address, bytes, sizeof(address));
    if (address != 0 && !code_map::contains(reinterpret_cast<const void*>(address))) {
      throw_unserializable<T>("decoding: a function of a library that was loaded after the pool was made");
    }
  }
}

template <class T>
inline constexpr bool has_invalid_representations = std::is_same_v<T, bool> || std::is_pointer_v<T>;

/// Whether any sizeof(T) bytes are an encoded T.
template <class T>
inline constexpr bool any_bytes_do = route_of<T> == route::by_bytes && !has_invalid_representations<T>;

template <class T>
struct codec<T, route::by_bytes> {
  template <class Out>
  static void put(Out& out, const T& value) {
    std::memcpy(out.bytes().extend(sizeof(T)), static_cast<const void*>(std::addressof(value)), sizeof(T));
  }

  template <class In>
  static T get(In& in) {
    raw_object<T> copy;
    in.bytes().read(copy.address(), sizeof(T));
    if constexpr (has_invalid_representations<T>) check_representation<T>(copy.address());
    return copy.take();
  }
};

// ---- by fields -----------------------------------------------------------------------------------------------------

template <class T>
struct codec<T, route::by_fields> {
  template <class Out>
  static void put(Out& out, const T& value) {
    [[maybe_unused]] const auto level = out.deeper();
    for_each_field(value, [&]<class Field>(const Field& field) { put_field(out, field); });
  }

  template <class In>
  static T get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    constexpr bool has_array = with_field_types<T>([]<class... Fields>() { return (std::is_array_v<Fields> || ...); });
    if constexpr (has_array) {
      T value{};
      for_each_field(value, [&]<class Field>(Field& field) { get_field(in, field); });
      return value;
    } else {
      return with_field_types<T>([&]<class... Fields>() { return T{get_value<Fields>(in)...}; });
    }
  }

 private:
  template <class Out, class Field>
  static void put_field(Out& out, const Field& field) {
    if constexpr (std::is_array_v<Field>) {
      for (const auto& element : field) put_field(out, element);
    } else {
      put_value<Field>(out, field);
    }
  }

  template <class In, class Field>
  static void get_field(In& in, Field& field) {
    if constexpr (std::is_array_v<Field>) {
      for (auto& element : field) get_field(in, element);
    } else {
      field = get_value<Field>(in);
    }
  }
};

// ---- by cereal -----------------------------------------------------------------------------------------------------

template <class T>
struct codec<T, route::by_cereal> {
  static void put(output_archive& out, const T& value) { out.put_by_cereal(value); }

  static T get(input_archive& in) {
    if constexpr (std::is_default_constructible_v<T>) {
      T value = T();
      in.get_by_cereal(value);
      return value;
    } else {
      const std::unique_ptr<T> value(cereal::access::construct<T>());
      in.get_by_cereal(*value);
      return std::move(*value);
    }
  }
};

// ---- what the archives are given -----------------------------------------------------------------------------------

// clang-format off
template <class T> inline constexpr bool is_cereal_name = false;
template <class T> inline constexpr bool is_cereal_name<cereal::NameValuePair<T>> = true;
template <class T> inline constexpr bool is_cereal_name<cereal::DeferredData<T>> = true;  // at once does as well
template <class T> inline constexpr bool is_cereal_size = false;
template <class T> inline constexpr bool is_cereal_size<cereal::SizeTag<T>> = true;
template <class T> inline constexpr bool is_cereal_binary = false;
template <class T> inline constexpr bool is_cereal_binary<cereal::BinaryData<T>> = true;
/// What an archive hands to cereal as it is: of the standard library, without code of ours, or with functions that suit
/// the archive.
template <class T, bool HasFunctions>
inline constexpr bool left_to_cereal =
    !std::is_scalar_v<T> && HasFunctions && !is_shared_array<T> && !trivially_transferable<T>::value &&
    (!parts_of<T>::known || (!by_own_code<T> && !(bytewise_copyable<T> && std::is_move_constructible_v<T>)));

template <class T> inline constexpr bool is_cereal_base = false;
template <class T> inline constexpr bool is_cereal_base<cereal::base_class<T>> = true;
template <class T> inline constexpr bool is_cereal_other = false;
template <class T> inline constexpr bool is_cereal_other<cereal::virtual_base_class<T>> = true;
template <class T> inline constexpr bool is_cereal_other<cereal::memory_detail::PtrWrapper<T>> = true;
template <class A, class T>
inline constexpr bool is_cereal_other<cereal::memory_detail::LoadAndConstructLoadWrapper<A, T>> = true;
// clang-format on

/// The elements that a size tag may announce without a byte for each: types that encode to nothing are allowed so many.
inline constexpr std::size_t max_elements_without_bytes = 1024;

template <class T>
void output_archive::put(T& value) {
  using U = std::remove_cv_t<T>;
  if constexpr (is_cereal_name<U>) {
    put(value.value);
  } else if constexpr (is_cereal_size<U>) {
    bytes_.put(static_cast<std::uint64_t>(value.size));
  } else if constexpr (is_cereal_binary<U>) {
    bytes_.write(value.data, static_cast<std::size_t>(value.size));
  } else if constexpr (is_cereal_base<U>) {
    put(*value.base_ptr);
  } else if constexpr (std::is_array_v<U>) {
    for (auto& element : value) put(element);
  } else if constexpr (is_cereal_other<U> ||
                       left_to_cereal<U, cereal::traits::is_output_serializable<U, output_archive>::value>) {
    put_by_cereal(value);
  } else if constexpr (check_transferable<U>()) {
    put_value<U>(*this, value);
  }
}

template <class T>
void input_archive::get(T& value) {
  using U = std::remove_cv_t<T>;
  if constexpr (is_cereal_name<U>) {
    get(value.value);
  } else if constexpr (is_cereal_size<U>) {
    const auto size = bytes_.get<std::uint64_t>();
    if (size > std::max(bytes_.remaining(), max_elements_without_bytes)) {
      throw make_error<serialization_error>("decoding: " + std::to_string(size) + " elements announced, " +
                                                std::to_string(bytes_.remaining()) + " bytes left",
                                            std::string("bytes"));
    }
    value.size = static_cast<std::remove_reference_t<decltype(value.size)>>(size);
  } else if constexpr (is_cereal_binary<U>) {
    if (value.size > bytes_.remaining()) bytes_.take(static_cast<std::size_t>(value.size));  // throws
    bytes_.read(value.data, static_cast<std::size_t>(value.size));
  } else if constexpr (is_cereal_base<U>) {
    get(*value.base_ptr);
  } else if constexpr (std::is_array_v<U>) {
    for (auto& element : value) get(element);
  } else if constexpr (is_cereal_other<U> ||
                       left_to_cereal<U, cereal::traits::is_input_serializable<U, input_archive>::value>) {
    get_by_cereal(value);
  } else if constexpr (check_transferable<U>()) {
    value = get_value<U>(*this);
  }
}

}  // namespace procpool::detail
