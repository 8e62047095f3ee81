// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

#include <boost/pfr/core.hpp>
#include <boost/preprocessor/repetition/enum_params.hpp>
#include <boost/preprocessor/repetition/repeat.hpp>
#include <boost/preprocessor/repetition/repeat_from_to.hpp>

namespace procpool::detail {

/// std::is_trivially_copyable, right also for closures with GCC 12, which takes it back once it was asked whether they
/// can be assigned.
template <class T>
inline constexpr bool bytewise_copyable =
    std::is_trivially_copyable_v<T> ||
    (std::is_trivially_copy_constructible_v<T> && std::is_trivially_move_constructible_v<T> &&
     std::is_trivially_destructible_v<T> && !std::is_copy_assignable_v<T> && !std::is_move_assignable_v<T>);

/// A T made of bytes: to be filled by memcpy(3) before its value is taken.
template <class T>
union raw_object {
  raw_object() noexcept {}
  ~raw_object() {}

  void* address() noexcept { return this; }
  T take() { return T(std::move(value)); }

  T value;
};

// What an aggregate consists of. Boost.PFR names the fields; counting them is ours, because PFR counts the elements of
// a C array as fields of their own and then stops the compilation. `{}` initialises exactly one field, array or not.

inline constexpr std::size_t max_fields = 100;  // as many as PFR names

/// Stands for an initialiser of any object type.
struct any_field {
  template <class T>
  operator T() const;
};

/// The same as an lvalue, for fields that are references.
struct any_lvalue {
  template <class T>
  operator T&() const;
};

/// Converts to a type for which `Predicate::holds<Type>` is true, and to no other. That the conversion is const lets a
/// converting constructor template (std::optional's) win where both would do.
template <class Predicate>
struct field_where {
  template <class T>
    requires(Predicate::template holds<T>)
  operator T() const;
};

/// Converts to a base class of T alone.
template <class T>
struct any_base_of {
  template <class B>
    requires(std::is_base_of_v<B, T> && !std::is_same_v<B, T>)
  operator B() const;
};

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wmissing-braces"

/// Whether T takes N times `{}`, and whether it takes `Next` behind them.
template <std::size_t N>
struct after_empty;

#define PROCPOOL_DETAIL_BRACES(z, n, unused) {},
#define PROCPOOL_DETAIL_AFTER_EMPTY(z, n, unused)                                                            \
  template <>                                                                                                \
  struct after_empty<n> {                                                                                    \
    template <class T>                                                                                       \
    static constexpr bool fills = requires { T{BOOST_PP_REPEAT_##z(n, PROCPOOL_DETAIL_BRACES, ~)}; };        \
    template <class T, class Next>                                                                           \
    static constexpr bool takes = requires { T{BOOST_PP_REPEAT_##z(n, PROCPOOL_DETAIL_BRACES, ~) Next{}}; }; \
  };
BOOST_PP_REPEAT(102, PROCPOOL_DETAIL_AFTER_EMPTY, ~)
#undef PROCPOOL_DETAIL_AFTER_EMPTY
#undef PROCPOOL_DETAIL_BRACES

template <class T>
concept has_base =
    std::is_aggregate_v<T> && !std::is_array_v<T> && !std::is_union_v<T> && requires { T{any_base_of<T>{}}; };

template <class T>
concept empty_initializable = requires { T{}; };

template <class T, class Fill, class Probe, std::size_t... Before, std::size_t... After>
consteval bool takes_among(std::index_sequence<Before...>, std::index_sequence<After...>) {
  return requires { T{(static_cast<void>(Before), Fill{})..., Probe{}, (static_cast<void>(After), Fill{})...}; };
}

template <class T, class Fill, std::size_t... Before, std::size_t... After>
consteval bool takes_empty_among(std::index_sequence<Before...>, std::index_sequence<After...>) {
  return requires { T{(static_cast<void>(Before), Fill{})..., {}, (static_cast<void>(After), Fill{})...}; };
}

#pragma GCC diagnostic pop

template <class T, std::size_t N = 0>
consteval std::size_t count_by_empty() {
  if constexpr (N <= max_fields) {
    if constexpr (after_empty<N + 1>::template fills<T>) return count_by_empty<T, N + 1>();
  }
  return N;
}

template <class T, class Fill, std::size_t... I>
consteval bool takes_all(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), Fill{})...}; };
}

/// Counts where a field cannot be made from nothing: the most initialisers that T takes. Elements of C arrays count.
template <class T, class Fill, std::size_t N>
consteval std::size_t count_by_filling() {
  if constexpr (N == 0) {
    return 0;
  } else if constexpr (takes_all<T, Fill>(std::make_index_sequence<N>())) {
    return N;
  } else {
    return count_by_filling<T, Fill, N - 1>();
  }
}

/// What fills a field that cannot be made from nothing; a reference takes an lvalue.
template <class T>
using filler = std::conditional_t<std::is_copy_constructible_v<T>, any_lvalue, any_field>;

/// How many fields an aggregate without bases has; more than max_fields if it is too many to tell.
template <class T>
consteval std::size_t count_fields() {
  if constexpr (std::is_empty_v<T>) {
    return 0;
  } else if constexpr (empty_initializable<T>) {
    return count_by_empty<T>();
  } else {
    constexpr std::size_t most = sizeof(T) < max_fields / 8 ? sizeof(T) * 8 : max_fields;
    return count_by_filling<T, filler<T>, most>();
  }
}

/// Whether a field of the aggregate (or an element of an array in it) has a type for which `Predicate` holds.
/// Looks at every field in turn, so that bit-fields, which cannot be bound to a reference, do no harm.
template <class T, class Predicate>
consteval bool has_field_where() {
  constexpr std::size_t count = count_fields<T>();
  return []<std::size_t... I>(std::index_sequence<I...>) {
    if constexpr (empty_initializable<T>) {
      return (after_empty<I>::template takes<T, field_where<Predicate>> || ...);
    } else {
      return (takes_among<T, filler<T>, field_where<Predicate>>(std::make_index_sequence<I>(),
                                                                std::make_index_sequence<count - I - 1>()) ||
              ...);
    }
  }(std::make_index_sequence<(count > max_fields ? max_fields : count)>());
}

/// Whether `{}` in place I stands for several of the initialisers that T takes: a C array is there.
template <class T, std::size_t I, std::size_t Count, std::size_t Width = 1>
consteval bool is_array_at() {
  if constexpr (I + Width > Count) {
    return false;
  } else if constexpr (takes_empty_among<T, filler<T>>(std::make_index_sequence<I>(),
                                                       std::make_index_sequence<Count - I - Width>())) {
    return Width != 1;
  } else {
    return is_array_at<T, I, Count, Width + 1>();
  }
}

/// Whether the aggregate has a C array beside a field that cannot be made from nothing: its fields cannot be told.
template <class T>
consteval bool has_uncountable_array() {
  if constexpr (std::is_empty_v<T> || empty_initializable<T>) {
    return false;
  } else {
    return []<std::size_t... I>(std::index_sequence<I...>) {
      return (is_array_at<T, I, sizeof...(I)>() || ...);
    }(std::make_index_sequence<count_fields<T>()>());
  }
}

/// The number of references among the fields as they are declared.
template <std::size_t N>
struct declared_fields;

#define PROCPOOL_DETAIL_IS_REFERENCE(z, n, unused) +(std::is_reference_v<decltype(f##n)> ? 1 : 0)
#define PROCPOOL_DETAIL_DECLARED_FIELDS(z, n, unused)                                                \
  template <>                                                                                        \
  struct declared_fields<n> {                                                                        \
    template <class T>                                                                               \
    static auto references(T& value) {                                                               \
      [[maybe_unused]] auto& [BOOST_PP_ENUM_PARAMS(n, f)] = value;                                   \
      return std::integral_constant<int, BOOST_PP_REPEAT_##z(n, PROCPOOL_DETAIL_IS_REFERENCE, ~)>(); \
    }                                                                                                \
  };
BOOST_PP_REPEAT_FROM_TO(1, 101, PROCPOOL_DETAIL_DECLARED_FIELDS, ~)
#undef PROCPOOL_DETAIL_DECLARED_FIELDS
#undef PROCPOOL_DETAIL_IS_REFERENCE

/// Whether a field is a reference. A reference makes an aggregate unassignable, so most are not looked at.
template <class T>
consteval bool has_reference_field() {
  if constexpr (std::is_empty_v<T> || std::is_move_assignable_v<T> || has_uncountable_array<T>()) {
    return false;
  } else {
    return decltype(declared_fields<count_fields<T>()>::references(std::declval<T&>()))::value != 0;
  }
}

/// The fields as a tuple of references. Not for aggregates with bases, bit-fields or anonymous unions.
template <class T>
constexpr auto tie_fields(T& value) {
  return boost::pfr::detail::tie_as_tuple(value, boost::pfr::detail::size_t_<count_fields<std::remove_cv_t<T>>()>{});
}

template <class T>
using tied_fields = decltype(tie_fields(std::declval<T&>()));

template <class T, std::size_t I>
using field_type =
    std::remove_cvref_t<decltype(boost::pfr::detail::sequence_tuple::get<I>(std::declval<tied_fields<T>&>()))>;

/// Returns what `fn.template operator()<Fields...>()` returns for the types of the fields.
template <class T, class Fn>
constexpr decltype(auto) with_field_types(Fn fn) {
  return [&]<std::size_t... I>(std::index_sequence<I...>) -> decltype(auto) {
    return fn.template operator()<field_type<T, I>...>();
  }(std::make_index_sequence<count_fields<T>()>());
}

/// Calls `fn(field)` for each field in turn.
template <class T, class Fn>
constexpr void for_each_field(T& value, Fn fn) {
  auto fields = tie_fields(value);
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    (fn(boost::pfr::detail::sequence_tuple::get<I>(fields)), ...);
  }(std::make_index_sequence<count_fields<std::remove_cv_t<T>>()>());
}

}  // namespace procpool::detail
