# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P do_not_spin.cmake
# Copies the headers whose waits spin before they sleep, with that time set to 0. Fails if it is not found there.
file(REMOVE_RECURSE "${OUT}")

# replace(FILE TEXT REPLACEMENT): in FILE, below include/procpool/detail, TEXT stands once
function(replace file text replacement)
  set(path "${OUT}/procpool/detail/${file}")
  if(NOT EXISTS "${path}")
    configure_file("${INCLUDE}/procpool/detail/${file}" "${path}" COPYONLY)
  endif()
  file(READ "${path}" content)
  string(FIND "${content}" "${text}" first)
  string(FIND "${content}" "${text}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "${file} does not have this once:\n${text}")
  endif()
  string(REPLACE "${text}" "${replacement}" content "${content}")
  file(WRITE "${path}" "${content}")
endfunction()

replace(posix/spin.hpp "pausing = std::chrono::microseconds(2)" "pausing = std::chrono::microseconds(0)")
replace(posix/spin.hpp "spinning = std::chrono::microseconds(50)" "spinning = std::chrono::microseconds(0)")
replace(waiting.hpp "spinning{2}" "spinning{0}")
replace(waiting.hpp "yielding{50}" "yielding{0}")
