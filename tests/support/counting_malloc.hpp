// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>

namespace support {

// For a program with counting_malloc.cpp, linked with --wrap=malloc and --wrap=aligned_alloc.

/// From now on every allocation of this process counts, or none does.
void count_allocations(bool whether) noexcept;
/// How many have counted.
std::size_t allocations() noexcept;

}  // namespace support
