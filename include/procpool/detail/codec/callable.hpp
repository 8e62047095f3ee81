// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <type_traits>

#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/stack_range.hpp>

namespace procpool::detail {

/// How a callable is sent.
enum class callable_route {
  pointer,    ///< function and member pointers: a number
  empty,      ///< nothing
  by_value,   ///< as an argument: functions of cereal's kind, or of the standard library
  by_bytes,   ///< trivially copyable: closures above all
  by_fields,  ///< aggregates
  unsupported,
};

/// Whether the fields of an aggregate can be told.
template <class F>
consteval bool takes_apart() {
  if constexpr (has_base<F>) {
    return false;
  } else if constexpr (has_uncountable_array<F>()) {
    return false;
  } else {
    return !has_reference_field<F>();
  }
}

template <class F>
consteval callable_route callable_route_for() {
  if constexpr (std::is_pointer_v<F>) {
    return std::is_function_v<std::remove_pointer_t<F>> ? callable_route::pointer : callable_route::unsupported;
  } else if constexpr (std::is_member_pointer_v<F>) {
    return callable_route::pointer;
  } else if constexpr (!std::is_class_v<F> || known_refusal<F> == refusal::function || std::is_bind_expression_v<F>) {
    return callable_route::unsupported;
  } else if constexpr (std::is_empty_v<F> && (bytewise_copyable<F> || std::is_default_constructible_v<F>)) {
    return callable_route::empty;
  } else if constexpr (refusal_of<F> == refusal::none && route_of<F> == route::by_cereal) {
    return callable_route::by_value;
  } else if constexpr (bytewise_copyable<F> && std::is_move_constructible_v<F>) {
    return callable_route::by_bytes;
  } else if constexpr (refusal_of<F> == refusal::none) {
    return callable_route::by_value;
  } else if constexpr (std::is_aggregate_v<F> && std::is_move_constructible_v<F> && takes_apart<F>()) {
    constexpr bool fields = with_field_types<F>([]<class... Fields>() {
      return ((!std::is_array_v<Fields> &&
               (refusal_of<Fields> == refusal::none ||
                (std::is_class_v<Fields> && callable_route_for<Fields>() != callable_route::unsupported))) &&
              ...);
    });
    return fields ? callable_route::by_fields : callable_route::unsupported;
  } else {
    return callable_route::unsupported;
  }
}

template <class F>
inline constexpr callable_route callable_route_of = callable_route_for<F>();

/// A callable so cheap to decode that every task gets a fresh one.
template <class F>
inline constexpr bool cheap_callable =
    (callable_route_of<F> != callable_route::by_value) && (callable_route_of<F> != callable_route::by_fields);

template <class F>
consteval bool check_callable() {
  static_assert(known_refusal<F> != refusal::function,
                "procpool: a std::function hides what it holds; submit the function, lambda or function object itself");
  static_assert(!std::is_bind_expression_v<F>,
                "procpool: the result of std::bind hides what it holds; submit a lambda, or send its arguments as "
                "arguments");
  static_assert(
      callable_route_of<F> != callable_route::unsupported || known_refusal<F> == refusal::function ||
          std::is_bind_expression_v<F>,
      "procpool: this callable cannot be copied to another process (does it capture a std::string, a container "
      "or a shared_array?); make what it captures an argument, or write an aggregate function object: struct { "
      "std::string s; R operator()(int) const; }");
  return callable_route_of<F> != callable_route::unsupported;
}

/// Throws std::invalid_argument if a word of the bytes is an address in the calling thread's stack.
inline void refuse_stack_addresses(const void* bytes, std::size_t size) {
  const stack_range& stack = stack_range::of_this_thread();
  for (std::size_t at = 0; at + sizeof(std::uintptr_t) <= size; at += sizeof(std::uintptr_t)) {
    std::uintptr_t word = 0;
    std::memcpy(&word, static_cast<const std::byte*>(bytes) + at, sizeof(word));
    if (stack.contains(word)) {
      throw std::invalid_argument(
          "procpool: the callable holds an address in the stack of the submitting thread (a capture by reference, or "
          "`this` of a local object), which means nothing in a worker; capture by value, or make it an argument");
    }
  }
}

template <class F>
struct callable_codec {
  /// Throws std::invalid_argument for null pointers and for closures that hold an address in the caller's stack.
  static void put(byte_writer& bytes, const F& callable) {
    if constexpr (callable_route_of<F> == callable_route::pointer) {
      if (callable == nullptr) throw std::invalid_argument("procpool: the callable is a null pointer");
      bytes.put(callable);
    } else if constexpr (callable_route_of<F> == callable_route::by_value) {
      encode<F>(bytes, callable);
    } else if constexpr (callable_route_of<F> == callable_route::by_bytes) {
      raw_object<F> copy;
      std::memcpy(copy.address(), static_cast<const void*>(std::addressof(callable)), sizeof(F));
#if defined(__has_builtin)
#if __has_builtin(__builtin_clear_padding)
      // What lies between the captures is left over from anything, stack addresses included.
      if constexpr (__is_trivially_copyable(F)) __builtin_clear_padding(std::addressof(copy.value));
#endif
#endif
      if constexpr (alignof(F) >= alignof(std::uintptr_t)) refuse_stack_addresses(copy.address(), sizeof(F));
      bytes.write(copy.address(), sizeof(F));
    } else if constexpr (callable_route_of<F> == callable_route::by_fields) {
      for_each_field(callable, [&]<class Field>(const Field& field) {
        if constexpr (refusal_of<Field> == refusal::none) {
          encode<Field>(bytes, field);
        } else {
          callable_codec<Field>::put(bytes, field);
        }
      });
    }
  }

  static F get(byte_reader& bytes) {
    if constexpr (callable_route_of<F> == callable_route::by_value) {
      return decode<F>(bytes);
    } else if constexpr (callable_route_of<F> == callable_route::by_fields) {
      return with_field_types<F>([&]<class... Fields>() { return F{get_field<Fields>(bytes)...}; });
    } else if constexpr (callable_route_of<F> == callable_route::empty) {
      if constexpr (std::is_default_constructible_v<F>) {
        return F();
      } else {
        raw_object<F> copy;
        std::memset(copy.address(), 0, sizeof(F));
        return copy.take();
      }
    } else {
      raw_object<F> copy;
      bytes.read(copy.address(), sizeof(F));
      if constexpr (std::is_pointer_v<F>) check_representation<F>(copy.address());
      return copy.take();
    }
  }

 private:
  template <class Field>
  static Field get_field(byte_reader& bytes) {
    if constexpr (refusal_of<Field> == refusal::none) {
      return decode<Field>(bytes);
    } else {
      return callable_codec<Field>::get(bytes);
    }
  }
};

}  // namespace procpool::detail
