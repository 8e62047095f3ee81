// SPDX-License-Identifier: BSL-1.0
#pragma once

/// Which of the bugs that mutate.cmake has built into the library is awake; 0: none.
inline int seeded_bug = 0;
