// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <complex>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <forward_list>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <ranges>
#include <set>
#include <span>
#include <stack>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <valarray>
#include <variant>
#include <vector>

#include <procpool/detail/codec/archive.hpp>
#include <procpool/detail/codec/fields.hpp>

namespace procpool {

template <class T>
class shared_array;

/// Vouches for a trivially copyable type that procpool refuses because it cannot see that no object of it holds an
/// address of its own process: `template <> struct procpool::trivially_transferable<T> : std::true_type {};`.
/// It then travels by its bytes.
template <class T>
struct trivially_transferable : std::false_type {};

namespace detail {

/// Why a type cannot be sent.
enum class refusal {
  none,
  pointer,
  c_string,
  reference,
  reference_wrapper,
  string_view,
  span,
  initializer_list,
  iterator,
  view,
  coroutine_handle,
  function,
  bind,
  opaque_union,
  opaque_class,
  array_pointer,
  no_default_constructor,
  immovable,
  base_class,
  array_member,
  unsupported,
};

template <class...>
struct type_list {};

/// The types that a type of the standard library consists of, for those that cereal supports.
template <class T>
struct parts_of {
  static constexpr bool known = false;
};

template <class... Parts>
struct known_parts {
  static constexpr bool known = true;
  using types = type_list<Parts...>;
};

// clang-format off
template <class T, class A> struct parts_of<std::vector<T, A>> : known_parts<T> {};
template <class T, class A> struct parts_of<std::deque<T, A>> : known_parts<T> {};
template <class T, class A> struct parts_of<std::list<T, A>> : known_parts<T> {};
template <class T, class A> struct parts_of<std::forward_list<T, A>> : known_parts<T> {};
template <class T, std::size_t N> struct parts_of<std::array<T, N>> : known_parts<T> {};
template <class T> struct parts_of<std::valarray<T>> : known_parts<T> {};
template <class T, class C, class A> struct parts_of<std::set<T, C, A>> : known_parts<T> {};
template <class T, class C, class A> struct parts_of<std::multiset<T, C, A>> : known_parts<T> {};
template <class K, class T, class C, class A> struct parts_of<std::map<K, T, C, A>> : known_parts<K, T> {};
template <class K, class T, class C, class A> struct parts_of<std::multimap<K, T, C, A>> : known_parts<K, T> {};
template <class T, class H, class E, class A> struct parts_of<std::unordered_set<T, H, E, A>> : known_parts<T> {};
template <class T, class H, class E, class A> struct parts_of<std::unordered_multiset<T, H, E, A>> : known_parts<T> {};
template <class K, class T, class H, class E, class A>
struct parts_of<std::unordered_map<K, T, H, E, A>> : known_parts<K, T> {};
template <class K, class T, class H, class E, class A>
struct parts_of<std::unordered_multimap<K, T, H, E, A>> : known_parts<K, T> {};
template <class A, class B> struct parts_of<std::pair<A, B>> : known_parts<A, B> {};
template <class... T> struct parts_of<std::tuple<T...>> : known_parts<T...> {};
template <class T> struct parts_of<std::optional<T>> : known_parts<T> {};
template <class... T> struct parts_of<std::variant<T...>> : known_parts<T...> {};
template <class T, class D> struct parts_of<std::unique_ptr<T, D>> : known_parts<T> {};
template <class T> struct parts_of<std::shared_ptr<T>> : known_parts<T> {};
template <class T> struct parts_of<std::weak_ptr<T>> : known_parts<T> {};
template <class T, class C> struct parts_of<std::stack<T, C>> : known_parts<C> {};
template <class T, class C> struct parts_of<std::queue<T, C>> : known_parts<C> {};
template <class T, class C, class L> struct parts_of<std::priority_queue<T, C, L>> : known_parts<C, L> {};
template <class C, class T, class A> struct parts_of<std::basic_string<C, T, A>> : known_parts<C> {};
template <class T> struct parts_of<std::complex<T>> : known_parts<T> {};
template <class R, class P> struct parts_of<std::chrono::duration<R, P>> : known_parts<R> {};
template <class C, class D> struct parts_of<std::chrono::time_point<C, D>> : known_parts<D> {};
template <class T> struct parts_of<std::atomic<T>> : known_parts<T> {};
template <std::size_t N> struct parts_of<std::bitset<N>> : known_parts<> {};
template <> struct parts_of<std::monostate> : known_parts<> {};

template <class T> inline constexpr bool is_smart_pointer = false;
template <class T, class D> inline constexpr bool is_smart_pointer<std::unique_ptr<T, D>> = true;
template <class T> inline constexpr bool is_smart_pointer<std::shared_ptr<T>> = true;
template <class T> inline constexpr bool is_smart_pointer<std::weak_ptr<T>> = true;

/// Pointers that cereal has no functions for.
template <class T> inline constexpr bool is_array_pointer = false;
template <class T, class D> inline constexpr bool is_array_pointer<std::unique_ptr<T[], D>> = true;
template <class T> inline constexpr bool is_array_pointer<std::shared_ptr<T[]>> = true;
template <class T> inline constexpr bool is_array_pointer<std::weak_ptr<T[]>> = true;

/// std::unique_ptr to what code of ours makes and moves into place; the others are cereal's.
template <class T> inline constexpr bool is_plain_unique_ptr = false;
template <class T>
inline constexpr bool is_plain_unique_ptr<std::unique_ptr<T>> = !std::is_polymorphic_v<T> && !std::is_void_v<T>;

template <class T> inline constexpr bool is_shared_array = false;
template <class T> inline constexpr bool is_shared_array<shared_array<T>> = true;

/// Types that are known to refer to what they do not own.
template <class T> inline constexpr refusal known_refusal = refusal::none;
template <class T> inline constexpr refusal known_refusal<std::reference_wrapper<T>> = refusal::reference_wrapper;
template <class C, class T> inline constexpr refusal known_refusal<std::basic_string_view<C, T>> = refusal::string_view;
template <class T, std::size_t N> inline constexpr refusal known_refusal<std::span<T, N>> = refusal::span;
template <class T> inline constexpr refusal known_refusal<std::initializer_list<T>> = refusal::initializer_list;
template <class P> inline constexpr refusal known_refusal<std::coroutine_handle<P>> = refusal::coroutine_handle;
template <class S> inline constexpr refusal known_refusal<std::function<S>> = refusal::function;
// clang-format on

/// Whether cereal, or the user in cereal's way, has functions for T.
template <class T>
concept has_cereal_functions = cereal::traits::is_output_serializable<T, output_archive>::value &&
                               cereal::traits::is_input_serializable<T, input_archive>::value;

/// Whether a T can be made to be filled in. Whether a private constructor will do is for cereal::access to find out.
template <class T>
concept makeable = std::is_default_constructible_v<T> || has_cereal_functions<T>;

/// Converts to any pointer to objects but characters: what takes it may keep it.
struct any_object_pointer {
  template <class T>
    requires(!std::is_function_v<T> && !std::is_same_v<std::remove_cv_t<T>, char>)
  operator T*() const;
};

template <class T>
concept dereferenceable = requires(const T& value) { *value; } || requires(const T& value) { value.operator->(); };

/// The type arguments of a class template, among which an address type gives the class away.
template <class T>
struct template_arguments {
  using types = type_list<>;
};
template <template <class...> class Template, class... Args>
struct template_arguments<Template<Args...>> {
  using types = type_list<Args...>;
};

template <class T, class... Seen>
consteval refusal why_refused();

/// The first reason among several types.
template <class... Seen, class... Parts>
consteval refusal first_refusal(type_list<Parts...>) {
  refusal first = refusal::none;
  static_cast<void>(((first = why_refused<Parts, Seen...>(), first != refusal::none) || ...));
  return first;
}

template <class... Seen>
struct refused {
  template <class T>
  static constexpr bool holds = why_refused<T, Seen...>() != refusal::none;
};

template <refusal Reason>
struct refused_for {
  template <class T>
  static constexpr bool holds = why_refused<T>() == Reason;
};

/// What is wrong with the fields of an aggregate that travels by its bytes.
template <class T, class... Seen>
consteval refusal refusal_among_fields() {
  if constexpr (has_reference_field<T>()) {
    return refusal::reference;
  } else if constexpr (!has_field_where<T, refused<Seen...>>()) {
    return refusal::none;
  } else {
    return []<int... R>(std::integer_sequence<int, R...>) {
      refusal found = refusal::opaque_class;
      static_cast<void>(
          ((has_field_where<T, refused_for<static_cast<refusal>(R + 1)>>() ? (found = static_cast<refusal>(R + 1), true)
                                                                           : false) ||
           ...));
      return found;
    }(std::make_integer_sequence<int, static_cast<int>(refusal::unsupported)>());
  }
}

/// What is wrong with a trivially copyable class whose members cannot be seen. A class with no room for an address is
/// clean; one that looks like a pointer, a reference or a view, or could have been given an address, is not.
template <class T, class... Seen>
consteval refusal refusal_of_opaque() {
  if constexpr (sizeof(T) < sizeof(void*) || alignof(T) < alignof(void*)) {
    return refusal::none;
  } else if constexpr (dereferenceable<T> || std::is_constructible_v<T, any_object_pointer> ||
                       !(std::is_copy_assignable_v<T> || std::is_move_assignable_v<T>)) {
    return refusal::opaque_class;
  } else {
    constexpr refusal argument = []<class... A>(type_list<A...>) {
      refusal first = refusal::none;
      static_cast<void>(((first = std::is_pointer_v<A> && !std::is_function_v<std::remove_pointer_t<A>>
                                      ? refusal::pointer
                                      : known_refusal<std::remove_cv_t<A>>,
                          first != refusal::none) ||
                         ...));
      return first;
    }(typename template_arguments<T>::types());
    return argument;
  }
}

template <class T, class... Seen>
consteval refusal why_refused() {
  using U = std::remove_cv_t<T>;
  if constexpr ((std::is_same_v<U, Seen> || ...)) {
    return refusal::none;  // a recursive type: decided by its other parts
  } else if constexpr (std::is_reference_v<U>) {
    return refusal::reference;
  } else if constexpr (std::is_pointer_v<U>) {
    using pointee = std::remove_cv_t<std::remove_pointer_t<U>>;
    if constexpr (std::is_function_v<pointee>) {
      return refusal::none;
    } else {
      return std::is_same_v<pointee, char> ? refusal::c_string : refusal::pointer;
    }
  } else if constexpr (std::is_array_v<U>) {
    return why_refused<std::remove_all_extents_t<U>, Seen...>();
  } else if constexpr (std::is_scalar_v<U>) {
    return refusal::none;
  } else if constexpr (!std::is_class_v<U> && !std::is_union_v<U>) {
    return refusal::unsupported;  // functions, void
  } else if constexpr (known_refusal<U> != refusal::none) {
    return known_refusal<U>;
  } else if constexpr (is_shared_array<U>) {
    return refusal::none;
  } else if constexpr (is_smart_pointer<U>) {
    using pointee = typename U::element_type;
    if constexpr (std::is_void_v<pointee>) {
      return refusal::pointer;
    } else if constexpr (is_array_pointer<U>) {
      return refusal::array_pointer;
    } else if constexpr (std::is_polymorphic_v<pointee>) {
      return refusal::none;  // cereal knows what it may point to when it is registered there
    } else {
      constexpr refusal inner = why_refused<pointee, U, Seen...>();
      if constexpr (cereal::traits::has_load_and_construct<std::remove_cv_t<pointee>, input_archive>::value &&
                    (inner == refusal::no_default_constructor || inner == refusal::immovable)) {
        return refusal::none;
      } else if constexpr (inner == refusal::immovable && has_cereal_functions<std::remove_cv_t<pointee>>) {
        return refusal::none;  // filled where it is
      } else if constexpr (inner == refusal::none && !is_plain_unique_ptr<U> && !makeable<std::remove_cv_t<pointee>>) {
        return refusal::no_default_constructor;
      } else {
        return inner;
      }
    }
  } else if constexpr (parts_of<U>::known) {
    constexpr refusal inner = first_refusal<U, Seen...>(typename parts_of<U>::types());
    if constexpr (inner == refusal::none && !std::is_move_constructible_v<U>) {
      return refusal::immovable;
    } else {
      return inner;
    }
  } else if constexpr (bytewise_copyable<U> && trivially_transferable<U>::value) {
    return refusal::none;
  } else if constexpr (std::is_bind_expression_v<U>) {
    return refusal::bind;
  } else if constexpr (has_cereal_functions<U>) {
    return std::is_move_constructible_v<U> ? refusal::none : refusal::immovable;
  } else if constexpr (std::is_union_v<U>) {
    return refusal::opaque_union;
  } else if constexpr (std::ranges::view<U> || std::ranges::borrowed_range<U>) {
    return refusal::view;
  } else if constexpr (std::input_or_output_iterator<U>) {
    return refusal::iterator;
  } else if constexpr (!std::is_move_constructible_v<U>) {
    return refusal::immovable;
  } else if constexpr (bytewise_copyable<U>) {
    if constexpr (std::is_empty_v<U>) {
      return refusal::none;
    } else if constexpr (std::is_aggregate_v<U> && !has_base<U>) {
      return refusal_among_fields<U, U, Seen...>();
    } else {
      return refusal_of_opaque<U>();
    }
  } else if constexpr (!std::is_aggregate_v<U>) {
    return refusal::unsupported;
  } else if constexpr (has_base<U>) {
    return refusal::base_class;
  } else if constexpr (has_uncountable_array<U>()) {
    return refusal::array_member;
  } else if constexpr (has_reference_field<U>()) {
    return refusal::reference;
  } else {
    return with_field_types<U>([]<class... Fields>() { return first_refusal<U, Seen...>(type_list<Fields...>()); });
  }
}

/// Whether T, or something in it, cannot be sent, and why.
template <class T>
inline constexpr refusal refusal_of = why_refused<T>();

/// Stops the compilation if T cannot travel as a result or inside another type, saying what to do.
template <class T>
consteval bool check_transferable() {
  constexpr refusal reason = refusal_of<T>;
  static_assert(reason != refusal::pointer,
                "procpool: a raw pointer is an address in its own process; send what it points to by value, in a "
                "std::unique_ptr<T>, a std::vector<T> or a procpool::shared_array<T>");
  static_assert(
      reason != refusal::c_string,
      "procpool: a char* is an address in its own process; as a result or inside another type use std::string");
  static_assert(reason != refusal::reference,
                "procpool: a reference member is an address in its own process; make the member a value");
  static_assert(reason != refusal::reference_wrapper,
                "procpool: a std::reference_wrapper holds an address in its own process; send the value itself");
  static_assert(reason != refusal::string_view,
                "procpool: a std::string_view refers to characters that it does not own; as a result or inside another "
                "type use std::string");
  static_assert(reason != refusal::span,
                "procpool: a std::span refers to elements that it does not own; as a result or inside another type use "
                "std::vector<T> or procpool::shared_array<T>");
  static_assert(reason != refusal::initializer_list,
                "procpool: a std::initializer_list refers to elements that it does not own; use std::vector<T>");
  static_assert(reason != refusal::iterator,
                "procpool: an iterator holds an address in its own process; send the element, or its index");
  static_assert(reason != refusal::view,
                "procpool: a view may refer to elements that it does not own; send a container such as std::vector<T>, "
                "or vouch for the type by procpool::trivially_transferable<T>");
  static_assert(reason != refusal::coroutine_handle,
                "procpool: a std::coroutine_handle is an address in its own process; send what the coroutine yields");
  static_assert(
      reason != refusal::function,
      "procpool: a std::function hides what it holds; send a function pointer, a lambda or a function object");
  static_assert(
      reason != refusal::bind,
      "procpool: the result of std::bind hides what it holds; use a lambda, or send its arguments as arguments");
  static_assert(
      reason != refusal::opaque_union,
      "procpool: a union does not tell whether it holds an address; use std::variant, or vouch for the type by "
      "procpool::trivially_transferable<T>");
  static_assert(
      reason != refusal::opaque_class,
      "procpool: this class may hold an address in its own process; make it an aggregate, give it a serialize() "
      "member, or vouch for it by procpool::trivially_transferable<T>");
  static_assert(reason != refusal::array_pointer,
                "procpool: a smart pointer to an array does not know the array's size; use std::vector<T>");
  static_assert(
      reason != refusal::no_default_constructor,
      "procpool: what a std::shared_ptr points to is made before it is filled; give the type a default constructor, or "
      "send it in a std::unique_ptr<T>");
  static_assert(reason != refusal::immovable,
                "procpool: a value that arrives is moved into place; give the type a move constructor, or send it in a "
                "std::unique_ptr<T>");
  static_assert(reason != refusal::base_class,
                "procpool: an aggregate with base classes cannot be taken apart; give it a serialize() member");
  static_assert(
      reason != refusal::array_member,
      "procpool: an aggregate with a C array is made before it is filled; give its members default values, or "
      "make the array a std::array");
  static_assert(reason != refusal::unsupported,
                "procpool: arguments and results are copied to another process; give the type a serialize() member, or "
                "make it an aggregate of types that can be sent");
  return reason == refusal::none;
}

}  // namespace detail
}  // namespace procpool
