// expect: a raw pointer is an address in its own process
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() { procpool::make_shared_array<int*>(3); }
