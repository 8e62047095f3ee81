# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P mutate.cmake
# Copies the headers, with bugs built in that sleep until seeded_bug (seeded_bug.hpp) is their number.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/patch_headers.cmake")
file(REMOVE_RECURSE "${OUT}")
file(COPY "${INCLUDE}/" DESTINATION "${OUT}")

# 1: a worker does not say what it starts: it is run again when it has killed its worker.
patch_header(shared_memory/lane_protocol.hpp
  "  replies.claimed.store(number, std::memory_order_seq_cst);"
  "  if (::seeded_bug != 1) replies.claimed.store(number, std::memory_order_seq_cst);")

# 2: a reply is published before its bytes are there.
patch_header(shared_memory/worker_loop.hpp
  "    if (block == nullptr && result_.size() != 0) std::memcpy(at"
  "    if (::seeded_bug == 2) protocol::publish(replies_, number);\n\
    if (block == nullptr && result_.size() != 0) std::memcpy(at")

# 3: what a dead worker had started goes back into the queue.
patch_header(scheduler/scheduler.hpp
  "    lose_started(i, end, done);"
  "    if (::seeded_bug != 3) lose_started(i, end, done);")

# 4: what a dead worker had published is not looked at.
patch_header(scheduler/scheduler.hpp
  "    while (collect(i)) {"
  "    while (::seeded_bug != 4 && collect(i)) {")

# 5: workers do not die with the zygote.
patch_header(shared_memory/worker_main.hpp
  "  ::prctl(PR_SET_PDEATHSIG, SIGKILL);"
  "  if (::seeded_bug != 5) ::prctl(PR_SET_PDEATHSIG, SIGKILL);")

# 6: nor do they see that it was dead before they asked for that.
patch_header(shared_memory/worker_main.hpp
  "  if (::getppid() != zygote) "
  "  if (::seeded_bug != 6 && ::getppid() != zygote) ")

# 7: the zygote does not kill its workers when the application is gone.
patch_header(shared_memory/zygote.hpp
  "      if (each.pid != 0 && !kill_group(each.pid)) all_killed = false;"
  "      if (::seeded_bug != 7 && each.pid != 0 && !kill_group(each.pid)) all_killed = false;")

# 8: a worker that dies when it is ready, but others are not, is replaced by nobody, and waited for.
patch_header(scheduler/crew.hpp
  "    if (served && (complete_ || departing_)) {"
  "    if (served && (::seeded_bug == 8 || complete_ || departing_)) {")
