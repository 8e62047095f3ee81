// SPDX-License-Identifier: BSL-1.0
#pragma once

// PROCPOOL_TEST_ASAN, PROCPOOL_TEST_TSAN: the test runs under that sanitizer, whichever compiler's it is.

#if defined(__SANITIZE_ADDRESS__)
#define PROCPOOL_TEST_ASAN
#elif defined(__SANITIZE_THREAD__)
#define PROCPOOL_TEST_TSAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PROCPOOL_TEST_ASAN
#elif __has_feature(thread_sanitizer)
#define PROCPOOL_TEST_TSAN
#endif
#endif
