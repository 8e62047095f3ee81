# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P seed.cmake
# Copies of some headers that waste time where they are told to (seeded.hpp). Fails if the place is not found: then the
# library has changed there, and the waste has to be put where it would come in now.
file(REMOVE_RECURSE "${OUT}")

# seed(FILE TEXT REPLACEMENT): in FILE, below include/procpool/detail, TEXT stands once
function(seed file text replacement)
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

# An allocation for each element that is encoded, posted, run, read; and a copy of what is sent.
seed(encode_inputs.hpp "      --room;" "      WASTE(encoding, 32);\n      --room;")
seed(shared_memory/lane_port.hpp "    last_ += what.count;" "    WASTE(posting, 32);\n    last_ += what.count;")
seed(shared_memory/worker_loop.hpp "    result_.restart();" "    WASTE(running, 32);\n    result_.restart();")
seed(shared_memory/lane_port.hpp "    reply_header header;" "    WASTE(reading, 32);\n    reply_header header;")
seed(shared_memory/lane_port.hpp
  "    if (at != nullptr) std::memcpy(at, from, size);"
  "    WASTE(copying, size);\n    if (at != nullptr) std::memcpy(at, from, size);")
