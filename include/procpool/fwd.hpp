// SPDX-License-Identifier: BSL-1.0
#pragma once

/// The names of the library's main types, for headers that only mention them.
namespace procpool {

struct shared_memory;
struct in_process;

struct pool_options;
struct call_options;
struct pool_stats;
struct worker_stats;

template <class Transport>
class process_pool;
class submitter;

template <class R>
class future;
template <class R>
class lazy_results;
template <class T>
class shared_array;

}  // namespace procpool
