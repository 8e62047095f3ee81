// SPDX-License-Identifier: BSL-1.0
// Loaded by late_library_test.cpp after its pool was made.
extern "C" int late_triple(int x) { return 3 * x; }
