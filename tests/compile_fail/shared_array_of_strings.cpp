// expect: use a trivially copyable element type
// SPDX-License-Identifier: BSL-1.0
#include <procpool/procpool.hpp>

#include <string>

int main() { procpool::make_shared_array<std::string>(3); }
