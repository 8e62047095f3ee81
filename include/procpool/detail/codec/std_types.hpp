// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <forward_list>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/codec/value.hpp>
#include <procpool/detail/posix/huge_pages.hpp>

namespace procpool::detail {

/// The least number of bytes that a value of T is encoded to; 0 where only its own code knows.
template <class T, class... Seen>
consteval std::size_t least_bytes() {
  if constexpr (std::is_array_v<T>) {
    return least_bytes<std::remove_extent_t<T>, Seen...>() * std::extent_v<T>;
  } else if constexpr ((std::is_same_v<T, Seen> || ...) || route_of<T> == route::by_cereal) {
    return 0;
  } else if constexpr (route_of<T> == route::by_bytes) {
    return sizeof(T);
  } else if constexpr (route_of<T> == route::by_handle) {
    return 2 * sizeof(std::uint64_t);
  } else if constexpr (route_of<T> == route::by_fields) {
    return with_field_types<T>(
        []<class... Fields>() { return (std::size_t{0} + ... + least_bytes<Fields, T, Seen...>()); });
  } else {
    return codec<T>::least;
  }
}

// ---- lengths -------------------------------------------------------------------------------------------------------

/// Reads the number of elements that follow; throws if there cannot be so many in the bytes that are left.
template <class T, class In>
std::size_t get_length(In& in, std::size_t least_per_element) {
  const auto length = in.bytes().template get<std::uint64_t>();
  if (length > in.bytes().remaining() / std::max<std::size_t>(least_per_element, 1)) {
    throw_unserializable<T>("decoding: " + std::to_string(length) + " elements announced, " +
                            std::to_string(in.bytes().remaining()) + " bytes left");
  }
  return static_cast<std::size_t>(length);
}

/// Elements that may encode to no byte at all are preceded by one: the number of bytes bounds the number of elements.
template <class T, class Out>
void put_element(Out& out, const T& element) {
  if constexpr (least_bytes<T>() == 0) out.bytes().put(std::uint8_t{0});
  put_value<T>(out, element);
}

template <class T, class In>
T get_element(In& in) {
  if constexpr (least_bytes<T>() == 0) in.bytes().take(1);
  return get_value<T>(in);
}

/// Room to ask for before the elements are there: never for more than as many bytes as are left.
template <class T, class In>
std::size_t first_room(In& in, std::size_t length) {
  return std::min(length, 1 + in.bytes().remaining() / sizeof(T));
}

/// Whether elements of T lie one after the other as in a vector: aligned, so that they are copied once.
template <class T>
inline constexpr bool copied_at_once =
    any_bytes_do<T> && alignof(T) <= payload_alignment && std::is_copy_constructible_v<T>;

template <class Container, class T, class Out>
void put_run(Out& out, const T* elements, std::size_t count) {
  out.bytes().put(static_cast<std::uint64_t>(count));
  if (count == 0) return;
  out.bytes().align(alignof(T));
  out.bytes().write(static_cast<const void*>(elements), count * sizeof(T));
}

/// Where the elements lie, at an address that is right for T, and how many they are.
template <class Container, class T, class In>
std::pair<const T*, std::size_t> get_run(In& in) {
  const std::size_t count = get_length<Container>(in, sizeof(T));
  if (count == 0) return {nullptr, 0};
  in.bytes().align(alignof(T));
  return {reinterpret_cast<const T*>(in.bytes().take(count * sizeof(T))), count};
}

// ---- sequences -----------------------------------------------------------------------------------------------------

template <class C, class T, class A>
struct codec<std::basic_string<C, T, A>, route::by_parts> {
  using type = std::basic_string<C, T, A>;
  static constexpr std::size_t least = sizeof(std::uint64_t);
  static_assert(copied_at_once<C>);

  template <class Out>
  static void put(Out& out, const type& value) {
    put_run<type>(out, value.data(), value.size());
  }
  template <class In>
  static type get(In& in) {
    const auto [characters, count] = get_run<type, C>(in);
    type value;
    if (count != 0) value.assign(characters, count);
    return value;
  }
};

template <class T, class A>
struct codec<std::vector<T, A>, route::by_parts> {
  using type = std::vector<T, A>;
  static constexpr std::size_t least = sizeof(std::uint64_t);

  template <class Out>
  static void put(Out& out, const type& value) {
    if constexpr (copied_at_once<T>) {
      put_run<type>(out, value.data(), value.size());
    } else {
      [[maybe_unused]] const auto level = out.deeper();
      out.bytes().put(static_cast<std::uint64_t>(value.size()));
      for (const auto& element : value) put_element<T>(out, static_cast<const T&>(element));
    }
  }
  template <class In>
  static type get(In& in) {
    type value;
    if constexpr (copied_at_once<T>) {
      const auto [elements, count] = get_run<type, T>(in);
      if (count * sizeof(T) <= copied_at_a_time) {
        value.assign(elements, elements + count);
      } else {
        value.reserve(count);
        if (count * sizeof(T) >= mapped_apart) prefer_huge_pages(value.data(), count * sizeof(T));
        constexpr std::size_t piece = std::max<std::size_t>(copied_at_a_time / sizeof(T), 1);
        for (std::size_t at = 0; at < count; at += piece)
          value.insert(value.end(), elements + at, elements + std::min(at + piece, count));
      }
    } else {
      [[maybe_unused]] const auto level = in.deeper();
      const std::size_t count = get_length<type>(in, least_bytes<T>());
      value.reserve(first_room<T>(in, count));
      for (std::size_t i = 0; i < count; ++i) value.push_back(get_element<T>(in));
    }
    return value;
  }
};

/// Containers whose elements are put at the end, one after the other.
template <class Container>
struct sequence_codec {
  using element = typename Container::value_type;
  static constexpr std::size_t least = sizeof(std::uint64_t);

  template <class Out>
  static void put(Out& out, const Container& value) {
    [[maybe_unused]] const auto level = out.deeper();
    out.bytes().put(static_cast<std::uint64_t>(std::distance(value.begin(), value.end())));
    for (const element& each : value) put_element<element>(out, each);
  }
  template <class In>
  static Container get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    const std::size_t count = get_length<Container>(in, least_bytes<element>());
    Container value;
    if constexpr (requires { value.insert_after(value.before_begin(), get_element<element>(in)); }) {
      auto last = value.before_begin();
      for (std::size_t i = 0; i < count; ++i) last = value.insert_after(last, get_element<element>(in));
    } else {
      for (std::size_t i = 0; i < count; ++i) value.push_back(get_element<element>(in));
    }
    return value;
  }
};

template <class T>
struct codec<std::valarray<T>, route::by_parts> {
  static constexpr std::size_t least = sizeof(std::uint64_t);
  static_assert(std::is_default_constructible_v<T>,
                "procpool: a std::valarray is made before it is filled; give its elements a default constructor, or "
                "send a std::vector<T>");

  template <class Out>
  static void put(Out& out, const std::valarray<T>& value) {
    codec<std::vector<T>>::put(out, std::vector<T>(std::begin(value), std::end(value)));
  }
  template <class In>
  static std::valarray<T> get(In& in) {
    std::vector<T> elements = codec<std::vector<T>>::get(in);
    std::valarray<T> value(elements.size());
    for (std::size_t i = 0; i < elements.size(); ++i) value[i] = std::move(elements[i]);
    return value;
  }
};

/// Containers with keys. Hash tables grow as elements arrive: their number is not believed.
template <class Container>
struct keyed_codec {
  using key = typename Container::key_type;
  static constexpr std::size_t least = sizeof(std::uint64_t);
  static constexpr bool has_values = requires { typename Container::mapped_type; };

  template <class Out>
  static void put(Out& out, const Container& value) {
    [[maybe_unused]] const auto level = out.deeper();
    out.bytes().put(static_cast<std::uint64_t>(value.size()));
    for (const auto& each : value) {
      if constexpr (has_values) {
        put_element<key>(out, each.first);
        put_value<typename Container::mapped_type>(out, each.second);
      } else {
        put_element<key>(out, each);
      }
    }
  }
  template <class In>
  static Container get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    const std::size_t count = get_length<Container>(in, least_bytes<key>());
    Container value;
    for (std::size_t i = 0; i < count; ++i) {
      key k = get_element<key>(in);
      if constexpr (has_values) {
        value.emplace_hint(value.end(), std::move(k), get_value<typename Container::mapped_type>(in));
      } else {
        value.emplace_hint(value.end(), std::move(k));
      }
    }
    return value;
  }
};

// clang-format off
template <class T, class A>
struct codec<std::deque<T, A>, route::by_parts> : sequence_codec<std::deque<T, A>> {};
template <class T, class A>
struct codec<std::list<T, A>, route::by_parts> : sequence_codec<std::list<T, A>> {};
template <class T, class A>
struct codec<std::forward_list<T, A>, route::by_parts> : sequence_codec<std::forward_list<T, A>> {};
template <class T, class C, class A>
struct codec<std::set<T, C, A>, route::by_parts> : keyed_codec<std::set<T, C, A>> {};
template <class T, class C, class A>
struct codec<std::multiset<T, C, A>, route::by_parts> : keyed_codec<std::multiset<T, C, A>> {};
template <class K, class T, class C, class A>
struct codec<std::map<K, T, C, A>, route::by_parts> : keyed_codec<std::map<K, T, C, A>> {};
template <class K, class T, class C, class A>
struct codec<std::multimap<K, T, C, A>, route::by_parts> : keyed_codec<std::multimap<K, T, C, A>> {};
template <class T, class H, class E, class A>
struct codec<std::unordered_set<T, H, E, A>, route::by_parts> : keyed_codec<std::unordered_set<T, H, E, A>> {};
template <class T, class H, class E, class A>
struct codec<std::unordered_multiset<T, H, E, A>, route::by_parts>
    : keyed_codec<std::unordered_multiset<T, H, E, A>> {};
template <class K, class T, class H, class E, class A>
struct codec<std::unordered_map<K, T, H, E, A>, route::by_parts> : keyed_codec<std::unordered_map<K, T, H, E, A>> {};
template <class K, class T, class H, class E, class A>
struct codec<std::unordered_multimap<K, T, H, E, A>, route::by_parts>
    : keyed_codec<std::unordered_multimap<K, T, H, E, A>> {};
// clang-format on

template <class T, std::size_t N>
struct codec<std::array<T, N>, route::by_parts> {
  using type = std::array<T, N>;
  static constexpr std::size_t least = least_bytes<T>() * N;

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    for (const T& element : value) put_value<T>(out, element);
  }
  template <class In>
  static type get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return type{{(static_cast<void>(I), get_value<T>(in))...}};
    }(std::make_index_sequence<N>());
  }
};

// ---- pairs, tuples and choices -------------------------------------------------------------------------------------

template <class A, class B>
struct codec<std::pair<A, B>, route::by_parts> {
  using type = std::pair<A, B>;
  using first = std::remove_cv_t<A>;
  using second = std::remove_cv_t<B>;
  static constexpr std::size_t least = least_bytes<first>() + least_bytes<second>();

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    put_value<first>(out, value.first);
    put_value<second>(out, value.second);
  }
  template <class In>
  static type get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    return type{get_value<first>(in), get_value<second>(in)};
  }
};

template <class... T>
struct codec<std::tuple<T...>, route::by_parts> {
  using type = std::tuple<T...>;
  static constexpr std::size_t least = (std::size_t{0} + ... + least_bytes<std::remove_cv_t<T>>());

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    std::apply([&](const T&... element) { (put_value<std::remove_cv_t<T>>(out, element), ...); }, value);
  }
  template <class In>
  static type get([[maybe_unused]] In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    return type{get_value<std::remove_cv_t<T>>(in)...};
  }
};

template <class T>
struct codec<std::optional<T>, route::by_parts> {
  using type = std::optional<T>;
  static constexpr std::size_t least = 1;

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    put_value<bool>(out, value.has_value());
    if (value) put_value<std::remove_cv_t<T>>(out, *value);
  }
  template <class In>
  static type get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    if (!get_value<bool>(in)) return std::nullopt;
    return type(std::in_place, get_value<std::remove_cv_t<T>>(in));
  }
};

template <class T>
struct codec<std::unique_ptr<T>, route::by_parts> {
  using type = std::unique_ptr<T>;
  using pointee = std::remove_cv_t<T>;
  static constexpr std::size_t least = 1;

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    put_value<bool>(out, value != nullptr);
    if (value) put_value<pointee>(out, *value);
  }
  template <class In>
  static type get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    if (!get_value<bool>(in)) return nullptr;
    return type(new pointee(get_value<pointee>(in)));
  }
};

template <class... T>
struct codec<std::variant<T...>, route::by_parts> {
  using type = std::variant<T...>;
  static constexpr std::size_t least = sizeof(std::uint32_t);

  template <class Out>
  static void put(Out& out, const type& value) {
    [[maybe_unused]] const auto level = out.deeper();
    if (value.valueless_by_exception()) throw_unserializable<type>("encoding: the variant holds no value");
    out.bytes().put(static_cast<std::uint32_t>(value.index()));
    std::visit([&]<class Held>(const Held& held) { put_value<Held>(out, held); }, value);
  }
  template <class In>
  static type get(In& in) {
    [[maybe_unused]] const auto level = in.deeper();
    const auto index = in.bytes().template get<std::uint32_t>();
    if (index >= sizeof...(T))
      throw_unserializable<type>("decoding: alternative " + std::to_string(index) + " of a variant");
    return get_alternative<0>(in, index);
  }

 private:
  template <std::size_t I, class In>
  static type get_alternative(In& in, std::size_t index) {
    if constexpr (I + 1 < sizeof...(T)) {
      if (index != I) return get_alternative<I + 1>(in, index);
    }
    return type(std::in_place_index<I>, get_value<std::remove_cv_t<std::variant_alternative_t<I, type>>>(in));
  }
};

}  // namespace procpool::detail
