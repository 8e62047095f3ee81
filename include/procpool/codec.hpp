// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <type_traits>

#include <procpool/detail/codec/call.hpp>
#include <procpool/detail/codec/encode.hpp>
#include <procpool/detail/codec/exception_codec.hpp>
#include <procpool/shared_array.hpp>

namespace procpool {

/// Values of T can be sent to a worker and back. The first that applies:
///   shared_array<T>: a handle travels, the elements stay where they are;
///   types with cereal functions of their own (`serialize`, `save`/`load`, `save_minimal`/`load_minimal`), which need a
///   default constructor: by these;
///   trivially copyable types in which no object address is seen: by their bytes;
///   what cereal supports of the standard library: with elements of any kind in this list;
///   aggregates: field by field.
/// Where the compiler says that a type cannot travel, it says why and what to do.
/// Limits   what a class keeps private is not seen: a class that may hold an address is refused unless its
///          trivially_transferable<T> is specialised. Values nest 1000 deep at most.
template <class T>
concept transferable = std::move_constructible<T> && detail::refusal_of<T> == detail::refusal::none;

/// Lets exceptions of type E arrive as E instead of remote_error. Call it before the pool is constructed, whose workers
/// know what was registered then; again does nothing. Safe to call from several threads.
/// Shapes   E is a copyable class with a codec: transferable<E>.
template <class E>
void register_exception() {
  static_assert(std::is_class_v<E> && std::is_copy_constructible_v<E>,
                "procpool: an exception is copied when it is thrown again; register a copyable class");
  if constexpr (detail::check_transferable<E>()) detail::exception_registration<E>::enter();
}

}  // namespace procpool
