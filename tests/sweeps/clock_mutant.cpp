// SPDX-License-Identifier: BSL-1.0
// The seeded bug that clock_jumps must find: every time in the library is the wall clock's. What is not the library's is
// included before.
#include <chrono>
#include <condition_variable>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

#include <boost/interprocess/indexes/null_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mapped_region.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>
#include <cereal/types/chrono.hpp>

#include <linux/futex.h>

#define steady_clock system_clock
#undef FUTEX_WAIT_BITSET
#define FUTEX_WAIT_BITSET (9 | FUTEX_CLOCK_REALTIME)
#include "clock_jumps.cpp"
