# SPDX-License-Identifier: BSL-1.0
# Copies of the library's headers with some text changed, for test tools that have to find a bug in them.

# replace_once(VARIABLE TEXT REPLACEMENT WHERE): TEXT, which stands once in the string VARIABLE, becomes REPLACEMENT.
# Fails, naming WHERE, if it does not: then the code has changed there, and so must what replaces it. No VARIABLE of the
# caller's may be called as one is here.
function(replace_once variable text replacement where)
  if(variable MATCHES "^(variable|text|replacement|where|first|last|result)$")
    message(FATAL_ERROR "replace_once sees its own ${variable}, and not the caller's")
  endif()
  string(FIND "${${variable}}" "${text}" first)
  string(FIND "${${variable}}" "${text}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "${where} does not have this once:\n${text}\nIt was to become:\n${replacement}")
  endif()
  string(REPLACE "${text}" "${replacement}" result "${${variable}}")
  set(${variable} "${result}" PARENT_SCOPE)
endfunction()

# patch_header(HEADER TEXT REPLACEMENT [INCLUDED]): replaces it in a copy, below OUT, of a header of procpool/detail below
# INCLUDE. The copy is made if it is not there, and includes what INCLUDED names, with its quotes or brackets.
function(patch_header header text replacement)
  set(path "${OUT}/procpool/detail/${header}")
  if(NOT EXISTS "${path}")
    configure_file("${INCLUDE}/procpool/detail/${header}" "${path}" COPYONLY)
  endif()
  file(READ "${path}" content)
  replace_once(content "${text}" "${replacement}" "${header}")
  if(ARGC GREATER 3)
    string(FIND "${content}" "#include ${ARGV3}\n" included)
    if(included EQUAL -1)
      replace_once(content "#pragma once\n" "#pragma once\n\n#include ${ARGV3}\n" "${header}")
    endif()
  endif()
  file(WRITE "${path}" "${content}")
endfunction()
