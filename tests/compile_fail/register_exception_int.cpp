// expect: an exception is copied when it is thrown again
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

int main() { procpool::register_exception<int>(); }
