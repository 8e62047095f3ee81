# SPDX-License-Identifier: BSL-1.0
# What procpool's own tests and examples are built with; users of the library get none of it.
set(procpool_warnings -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Werror)

option(PROCPOOL_BUILD_PROOFS "With the tests: kills at every address, storms, system calls and allocations that fail, valgrind" ON)
option(PROCPOOL_NIGHTLY "Run the proofs at full length" OFF)
option(PROCPOOL_FUZZ "Build the fuzzers, and no other test (clang)" OFF)

set(PROCPOOL_TEST_TIMEOUT 60 CACHE STRING "Seconds after which a test or an example counts as hung")

# procpool_program(NAME SOURCE...): an executable that uses procpool, all warnings being errors.
function(procpool_program name)
  add_executable(${name} ${ARGN})
  target_link_libraries(${name} PRIVATE procpool::procpool)
  target_compile_options(${name} PRIVATE ${procpool_warnings})
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()
