# SPDX-License-Identifier: BSL-1.0
# Compiles SOURCE with COMPILER and compares what happens with the file's first line. With COMPILED_HEADER, SOURCE is a
# header that is compiled to this file; USE_PRECOMPILED are options with which the compiler finds such a one.
string(REPLACE "|" ";" implicit_directories "${IMPLICIT_DIRECTORIES}")
string(REPLACE "|" ";" use_precompiled "${USE_PRECOMPILED}")
string(REPLACE "|" ";" include_directories "${INCLUDE_DIRECTORIES}")
list(REMOVE_ITEM include_directories ${implicit_directories} "")  # named again they would be searched in another order
list(REMOVE_DUPLICATES include_directories)
list(TRANSFORM include_directories PREPEND "-I")
set(ENV{LC_ALL} C)

if(DEFINED COMPILED_HEADER)
  cmake_path(GET COMPILED_HEADER PARENT_PATH directory)
  file(MAKE_DIRECTORY "${directory}")
  execute_process(
    COMMAND "${COMPILER}" -std=c++20 ${include_directories} -x c++-header "${SOURCE}" -o "${COMPILED_HEADER}"
    COMMAND_ERROR_IS_FATAL ANY
  )
  return()
endif()

file(STRINGS "${SOURCE}" first_line LIMIT_COUNT 1)
string(REPLACE "\\;" ";" first_line "${first_line}")  # file(STRINGS) makes a list
if(first_line MATCHES "^// expect: (.+)$")
  set(expected "${CMAKE_MATCH_1}")
elseif(NOT first_line STREQUAL "// compiles")
  message(FATAL_ERROR "${SOURCE}: the first line is neither \"// expect: TEXT\" nor \"// compiles\"")
endif()

execute_process(
  COMMAND "${COMPILER}" -std=c++20 -fsyntax-only ${use_precompiled} ${include_directories} "${SOURCE}"
  RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE output
)
if(NOT DEFINED expected)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "does not compile:\n${output}")
  endif()
elseif(result EQUAL 0)
  message(FATAL_ERROR "compiles; expected: ${expected}")
else()
  string(FIND "${output}" "${expected}" position)
  if(position EQUAL -1)
    message(FATAL_ERROR "the compiler does not say \"${expected}\":\n${output}")
  endif()
endif()
