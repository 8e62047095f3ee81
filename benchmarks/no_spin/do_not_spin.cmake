# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P do_not_spin.cmake
# Copies the headers whose waits spin before they sleep, with that time set to 0.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/patch_headers.cmake")
file(REMOVE_RECURSE "${OUT}")

patch_header(posix/spin.hpp "pausing = std::chrono::microseconds(2)" "pausing = std::chrono::microseconds(0)")
patch_header(posix/spin.hpp "spinning = std::chrono::microseconds(50)" "spinning = std::chrono::microseconds(0)")
patch_header(waiting.hpp "spinning{2}" "spinning{0}")
patch_header(waiting.hpp "yielding{50}" "yielding{0}")
patch_header(waiting.hpp "waking_up{100}" "waking_up{0}")
