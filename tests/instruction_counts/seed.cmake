# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P seed.cmake
# Copies of some headers that waste time where they are told to (seeded.hpp).
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/patch_headers.cmake")
file(REMOVE_RECURSE "${OUT}")

# An allocation, or as much memory, for each element that is encoded, posted, run, read; and a copy of what is sent.
patch_header(encode_inputs.hpp "      --room;" "      WASTE(encoding, 32);\n      --room;")
patch_header(encode_inputs.hpp "    all.total += next.count;" "    WASTE(encoding, 32 * next.count);\n    all.total += next.count;")
patch_header(shared_memory/lane_port.hpp "    last_ += what.count;" "    WASTE(posting, 32);\n    last_ += what.count;")
patch_header(shared_memory/worker_loop.hpp "    result_.restart();" "    WASTE(running, 32);\n    result_.restart();")
patch_header(shared_memory/worker_loop.hpp "    result += result_size_;" "    WASTE(running, 32);\n    result += result_size_;")
patch_header(shared_memory/reply_reader.hpp "    reply_header header;" "    WASTE(reading, 32);\n    reply_header header;")
patch_header(shared_memory/reply_reader.hpp "        return slice;" "        WASTE(reading, 32 * count);\n        return slice;")
patch_header(codec/bytes.hpp
  "    if (n != 0) copy_bytes("
  "    WASTE(copying, n);\n    if (n != 0) copy_bytes(")
