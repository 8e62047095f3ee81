// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

/// Marks a function that catches `abi::__forced_unwind&` to let `pthread_exit` and `pthread_cancel` pass a `catch (...)`.
/// A forced unwind has no exception object to refer to, which the undefined-behaviour sanitizer takes for a null reference.
#define PROCPOOL_CATCHES_FORCED_UNWIND __attribute__((no_sanitize("null")))
