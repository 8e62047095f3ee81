// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/codec/encode.hpp>

namespace procpool::detail {

// ---- what an argument is sent as -----------------------------------------------------------------------------------

// clang-format off
/// Arguments that are sent as their contents and read where they lie.
template <class T> inline constexpr bool is_view_argument = std::is_same_v<T, const char*>;
template <class C, class Tr> inline constexpr bool is_view_argument<std::basic_string_view<C, Tr>> = true;
template <class T, std::size_t N> inline constexpr bool is_view_argument<std::span<const T, N>> = true;

template <class T> inline constexpr bool is_writable_span = false;
template <class T, std::size_t N> inline constexpr bool is_writable_span<std::span<T, N>> = !std::is_const_v<T>;
// clang-format on

/// What an argument of a decayed type arrives as. Proxies arrive as the value that they stand for.
template <class Arg>
struct arrival {
  using type = Arg;
};
template <>
struct arrival<char*> {
  using type = const char*;
};
template <>
struct arrival<std::vector<bool>::reference> {
  using type = bool;
};

/// A function pointer's parameter types say what its arguments are converted to before they are sent; what would be
/// cut down to a base class by that is sent as it is.
template <class Parameter, class Arg>
struct converted_arrival {
  using parameter = std::decay_t<Parameter>;
  static constexpr bool as_it_is = std::is_same_v<parameter, Arg> || std::is_base_of_v<parameter, Arg>;
  using type = typename arrival<std::conditional_t<as_it_is, Arg, parameter>>::type;
  static constexpr bool possible =
      as_it_is || (std::is_convertible_v<typename arrival<Arg>::type, type> && !std::is_array_v<type>);
};

/// The types in which the arguments of a call arrive, and whether they can be made from what is given.
template <class F, class... Args>
struct arrivals {
  static constexpr bool possible = true;
  using types = std::tuple<typename arrival<Args>::type...>;
};

template <class... T>
struct parameter_list {};
template <class Parameters, class... Args>
struct arrivals_of_function;
template <class... Parameters, class... Args>
  requires(sizeof...(Parameters) == sizeof...(Args))
struct arrivals_of_function<parameter_list<Parameters...>, Args...> {
  static constexpr bool possible = (converted_arrival<Parameters, Args>::possible && ...);
  using types = std::tuple<typename converted_arrival<Parameters, Args>::type...>;
};
template <class... Parameters, class... Args>
  requires(sizeof...(Parameters) != sizeof...(Args))
struct arrivals_of_function<parameter_list<Parameters...>, Args...> {
  static constexpr bool possible = false;
  using types = std::tuple<>;
};

template <class R, class... Parameters, class... Args>
struct arrivals<R (*)(Parameters...), Args...> : arrivals_of_function<parameter_list<Parameters...>, Args...> {};
template <class R, class... Parameters, class... Args>
struct arrivals<R (*)(Parameters...) noexcept, Args...> : arrivals_of_function<parameter_list<Parameters...>, Args...> {
};

// ---- how they are passed -------------------------------------------------------------------------------------------

/// Arguments are passed as rvalues; where that is no call, those of them as lvalues that make it one. Bit i of a mask
/// stands for "argument i as an lvalue".
template <class F, class Tuple, std::size_t Mask>
struct passing;

template <class F, class... T, std::size_t Mask>
struct passing<F, std::tuple<T...>, Mask> {
  template <std::size_t... I>
  static auto test(std::index_sequence<I...>)
      -> std::is_invocable<F, std::conditional_t<((Mask >> I) & 1) != 0, T&, T&&>...>;
  template <std::size_t... I>
  static auto result(std::index_sequence<I...>)
      -> std::invoke_result<F, std::conditional_t<((Mask >> I) & 1) != 0, T&, T&&>...>;
  using indices = std::make_index_sequence<sizeof...(T)>;
  static constexpr bool invocable = decltype(test(indices()))::value;
};

inline constexpr std::size_t no_mask = static_cast<std::size_t>(-1);

template <class F, class Tuple, std::size_t Mask = 0>
consteval std::size_t find_mask() {
  constexpr std::size_t count = std::tuple_size_v<Tuple>;
  if constexpr (passing<F, Tuple, Mask>::invocable) {
    return Mask;
  } else if constexpr (count <= 6) {
    if constexpr (Mask + 1 < (std::size_t{1} << count)) {
      return find_mask<F, Tuple, Mask + 1>();
    } else {
      return no_mask;
    }
  } else {
    constexpr std::size_t all = (std::size_t{1} << count) - 1;
    if constexpr (Mask == 0) {
      return find_mask<F, Tuple, all>();
    } else {
      return no_mask;
    }
  }
}

/// F called with Args, as they arrive.
template <class F, class... Args>
concept callable_with =
    arrivals<F, Args...>::possible && find_mask<F&, typename arrivals<F, Args...>::types>() != no_mask;

// ---- arguments ↔ bytes --------------------------------------------------------------------------------------------

template <class T>
consteval bool check_argument() {
  static_assert(!is_writable_span<T>,
                "procpool: what a task writes through a std::span<T> does not come back; send a std::span<const T> and "
                "return a std::vector<T>, or send a procpool::shared_array<T>");
  if constexpr (is_writable_span<T>) {
    return false;
  } else if constexpr (is_view_argument<T> && !std::is_pointer_v<T>) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(std::declval<const T&>().data())>>;
    static_assert(bytewise_copyable<element>,
                  "procpool: the elements of a span are read where they lie in the message; use trivially copyable "
                  "elements, or send a std::vector<T>");
    static_assert(
        alignof(element) <= payload_alignment,
        "procpool: the elements of a span want a stricter alignment than messages have; send a std::vector<T>");
    if constexpr (bytewise_copyable<element> && alignof(element) <= payload_alignment) {
      return check_transferable<element>();
    } else {
      return false;
    }
  } else if constexpr (is_view_argument<T>) {
    return true;
  } else {
    return check_transferable<T>();
  }
}

template <class T>
void put_argument(byte_writer& bytes, const T& value) {
  if constexpr (std::is_same_v<T, const char*>) {
    if (value == nullptr) throw_unserializable<const char*>("encoding: a null const char*");
    plain_output out(bytes);
    put_run<T>(out, value, std::strlen(value) + 1);
  } else if constexpr (is_view_argument<T>) {
    plain_output out(bytes);
    put_run<T>(out, value.data(), value.size());
  } else {
    encode<T>(bytes, value);
  }
}

template <class T>
T get_argument(byte_reader& bytes) {
  if constexpr (std::is_same_v<T, const char*>) {
    plain_input in(bytes);
    const auto [characters, count] = get_run<T, char>(in);
    if (count == 0 || characters[count - 1] != '\0') throw_unserializable<T>("decoding: a const char* without its end");
    return characters;
  } else if constexpr (is_view_argument<T>) {
    using element = std::remove_cv_t<std::remove_pointer_t<decltype(std::declval<const T&>().data())>>;
    plain_input in(bytes);
    const auto [elements, count] = get_run<T, element>(in);
    if constexpr (requires { T::extent; }) {
      if constexpr (T::extent != std::dynamic_extent) {
        if (count != T::extent) throw_unserializable<T>("decoding: a span of another size");
        return T(elements, T::extent);
      }
    }
    return T(elements, count);
  } else {
    return decode<T>(bytes);
  }
}

}  // namespace procpool::detail
