// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

#include <procpool/detail/engine.hpp>
#include <procpool/detail/engine_setup.hpp>

namespace procpool {

/// Where the workers of a `process_pool<T>` run. A transport is an empty tag with one operation, `start`: it brings
/// up an engine (detail/engine.hpp), which takes encoded tasks and settles every one of them, whatever happens. It
/// returns when each worker has run its initializer, and throws `worker_start_error`, with nothing left behind, when
/// one cannot be started. An engine knows neither types nor futures; all it learns of a task is its code and bytes.
/// `T::limits_tasks`: whether a task's worker can be killed when its time is over.
template <class T>
concept transport = std::is_empty_v<T> && requires(detail::engine_setup setup) {
  { T::start(std::move(setup)) } -> std::same_as<std::shared_ptr<detail::engine>>;
  { T::limits_tasks } -> std::convertible_to<bool>;
};

}  // namespace procpool
