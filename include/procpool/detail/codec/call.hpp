// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include <procpool/detail/codec/arguments.hpp>
#include <procpool/detail/codec/callable.hpp>
#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/detail/forced_unwind.hpp>
#include <procpool/detail/job.hpp>

namespace procpool::detail {

/// One way of calling: F, a decayed callable, with arguments of the decayed types Args as the caller passes them. Its
/// `code` is what a worker runs; the bytes it expects are those that encode_callable() and encode_arguments() write.
/// Instantiating it reports, as compile errors that name the remedy, everything in it that cannot travel.
template <class F, class... Args>
  requires callable_with<F, Args...>
struct call {
  /// The types in which the arguments arrive.
  using arriving = typename arrivals<F, Args...>::types;
  static constexpr std::size_t lvalues = find_mask<F&, arriving>();

 private:
  using passing_as = passing<F&, arriving, lvalues>;
  using raw_result = typename decltype(passing_as::result(typename passing_as::indices()))::type;

 public:
  using result_type = std::decay_t<raw_result>;

 private:
  // Whether it does the same as a const object.
  static constexpr bool same_if_const = [] {
    if constexpr (!passing<const F&, arriving, lvalues>::invocable) {
      return false;
    } else {
      using as_const = passing<const F&, arriving, lvalues>;
      return std::is_same_v<typename decltype(as_const::result(typename as_const::indices()))::type, raw_result>;
    }
  }();

  static constexpr std::size_t largest_in_series = 256;

  template <class T>
  static consteval bool goes_by_bytes() {
    if constexpr (is_view_argument<T>) {
      return false;
    } else {
      return route_of<T> == route::by_bytes;
    }
  }

 public:
  static constexpr bool checked = [] {
    constexpr bool callable = check_callable<F>();
    constexpr bool arguments = []<class... T>(std::type_identity<std::tuple<T...>>) {
      return (check_argument<T>() && ...);
    }(std::type_identity<arriving>());
    if constexpr (std::is_void_v<result_type>) {
      return callable && arguments;
    } else {
      return check_transferable<result_type>() && callable && arguments;
    }
  }();
  static_assert(checked);

  /// The size of the result, in bytes, where elements of a chunk can be run in one go (call_frame::series): where
  /// arguments and result go by their bytes and the callable can be the same for all. Else 0.
  static constexpr std::uint32_t series_size = [] {
    if constexpr (std::is_void_v<result_type>) {
      return 0U;
    } else {
      constexpr bool arguments_by_bytes = []<class... T>(std::type_identity<std::tuple<T...>>) {
        return (goes_by_bytes<T>() && ...);
      }(std::type_identity<arriving>());
      return arguments_by_bytes && goes_by_bytes<result_type>() && sizeof(result_type) <= largest_in_series &&
                     same_if_const
                 ? static_cast<std::uint32_t>(sizeof(result_type))
                 : 0U;
    }
  }();

  /// Throws std::invalid_argument for a null pointer and for a closure that holds an address in the caller's stack,
  /// and serialization_error.
  static void encode_callable(byte_writer& bytes, const F& callable) { callable_codec<F>::put(bytes, callable); }

  /// Throws serialization_error and what a conversion to a parameter's type throws.
  template <class... Values>
    requires(sizeof...(Values) == sizeof...(Args))
  static void encode_arguments(byte_writer& bytes, Values&&... values) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (put_converted<std::tuple_element_t<I, arriving>>(bytes, std::forward<Values>(values)), ...);
    }(std::index_sequence_for<Values...>());
  }

  /// What the worker runs; a task_code. What the user's call throws becomes the reply; out_of_shared_memory and
  /// std::bad_alloc from the writer are let through.
  static reply_kind code(call_frame& frame) {
    const std::size_t size = frame.result.size();
    const std::size_t attachments = frame.result.attachments().size();
    try {
      byte_reader reader = frame.callable;
      if constexpr (keeps_callable) {
        if (!frame.kept) frame.kept = std::make_shared<F>(callable_codec<F>::get(reader));
        return run(*static_cast<const F*>(frame.kept.get()), frame);
      } else {
        F callable = callable_codec<F>::get(reader);
        return run(callable, frame);
      }
    } catch (const serialization_error& error) {  // of the codec; run() lets none of the task's out
      frame.result.truncate(size, attachments);
      encode_failure(frame.result, error);
      return reply_kind::unserializable;
    }
  }

 private:
  template <class T, class Value>
  static void put_converted(byte_writer& bytes, Value&& value) {
    if constexpr (std::is_same_v<T, std::remove_cvref_t<Value>>) {
      put_argument<T>(bytes, value);
    } else {
      put_argument<T>(bytes, static_cast<T>(std::forward<Value>(value)));
    }
  }

  // A callable that may be kept for the whole chunk: used as const, so no element sees what another one left in it.
  static constexpr bool keeps_callable = !cheap_callable<F> && same_if_const;

  template <class Callable>
  PROCPOOL_CATCHES_FORCED_UNWIND static reply_kind run(Callable& callable, call_frame& frame) {
    if constexpr (series_size != 0) {
      if (frame.series != nullptr) return run_series(std::as_const(callable), frame);
    }
    arriving arguments = decode_arguments(frame.arguments);
    if constexpr (std::is_void_v<result_type>) {
      try {
        invoke(callable, arguments);
        return reply_kind::value;
      } catch (abi::__forced_unwind&) {
        throw;
      } catch (...) {
        return put_exception(frame);
      }
    } else if constexpr (std::is_same_v<raw_result, result_type&> || std::is_same_v<raw_result, const result_type&>) {
      const result_type* result;  // what lies elsewhere is encoded from there
      try {
        result = std::addressof(invoke(callable, arguments));
      } catch (abi::__forced_unwind&) {
        throw;
      } catch (...) {
        return put_exception(frame);
      }
      encode<result_type>(frame.result, *result);
      return reply_kind::value;
    } else {
      std::optional<result_type> result;
      try {
        result.emplace(invoke(callable, arguments));
      } catch (abi::__forced_unwind&) {
        throw;
      } catch (...) {
        return put_exception(frame);
      }
      encode<result_type>(frame.result, *result);
      return reply_kind::value;
    }
  }

  /// Until the series ends, or an element that has been claimed ends in something else than a value.
  PROCPOOL_CATCHES_FORCED_UNWIND static reply_kind run_series(const F& callable, call_frame& frame) {
    result_series& series = *frame.series;
    bool more = true;
    while (more) {
      arriving arguments = decode_arguments(frame.arguments);
      try {
        const result_type value = invoke(callable, arguments);
        std::memcpy(series.result, static_cast<const void*>(std::addressof(value)), sizeof(value));
      } catch (abi::__forced_unwind&) {
        throw;
      } catch (...) {
        return put_exception(frame);
      }
      more = series.go_on();
    }
    return reply_kind::series;
  }

  static reply_kind put_exception(call_frame& frame) {
    encode_exception(frame.result, std::current_exception());
    return reply_kind::exception;
  }

  static arriving decode_arguments([[maybe_unused]] byte_reader& bytes) {
    return [&]<class... T>(std::type_identity<std::tuple<T...>>) {
      return std::tuple<T...>{get_argument<T>(bytes)...};
    }(std::type_identity<arriving>());
  }

  template <class Callable>
  static decltype(auto) invoke(Callable& callable, arriving& arguments) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) -> decltype(auto) {
      return std::invoke(callable, pass<I>(arguments)...);
    }(std::make_index_sequence<std::tuple_size_v<arriving>>());
  }

  template <std::size_t I>
  static decltype(auto) pass(arriving& arguments) {
    if constexpr (((lvalues >> I) & 1) != 0) {
      return std::get<I>(arguments);
    } else {
      return std::get<I>(std::move(arguments));
    }
  }
};

/// The call that one element of a range of tuples (pairs, arrays) stands for.
template <class F, class Tuple, class Indices = std::make_index_sequence<std::tuple_size_v<Tuple>>>
struct starred_call;

template <class F, class Tuple, std::size_t... I>
struct starred_call<F, Tuple, std::index_sequence<I...>> {
  static constexpr bool possible = callable_with<F, std::decay_t<std::tuple_element_t<I, Tuple>>...>;

  template <class>
  struct lazy {
    using type = call<F, std::decay_t<std::tuple_element_t<I, Tuple>>...>;
  };

  /// Encodes the elements of one tuple as the arguments of one call.
  template <class Value>
  static void encode_arguments(byte_writer& bytes, Value&& tuple) {
    std::apply(
        [&]<class... T>(T&&... values) {
          call<F, std::decay_t<std::tuple_element_t<I, Tuple>>...>::encode_arguments(bytes, std::forward<T>(values)...);
        },
        std::forward<Value>(tuple));
  }
};

/// F can be called with the elements of Tuple, a std::tuple, std::pair or std::array.
template <class F, class Tuple>
concept callable_with_tuple = requires { std::tuple_size<Tuple>::value; } && starred_call<F, Tuple>::possible;

/// The call<...> of F with the elements of Tuple.
template <class F, class Tuple>
  requires callable_with_tuple<F, Tuple>
using call_with_tuple = typename starred_call<F, Tuple>::template lazy<F>::type;

/// Encodes one tuple's elements as the arguments of call_with_tuple<F, std::remove_cvref_t<Tuple>>.
template <class F, class Tuple>
void encode_tuple_arguments(byte_writer& bytes, Tuple&& tuple) {
  starred_call<F, std::remove_cvref_t<Tuple>>::encode_arguments(bytes, std::forward<Tuple>(tuple));
}

}  // namespace procpool::detail
