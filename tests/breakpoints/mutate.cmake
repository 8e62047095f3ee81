# SPDX-License-Identifier: BSL-1.0
# cmake -DFROM=INCLUDE -DTO=DIRECTORY -P mutate.cmake: copies the headers, with bugs built in that sleep until
# seeded_bug (seeded_bug.hpp) is their number. Fails if the code is not there that a bug is built into.
file(REMOVE_RECURSE "${TO}")
file(COPY "${FROM}/" DESTINATION "${TO}")

# mutate(FILE OLD NEW...): the one place where the file says OLD says NEW.
function(mutate file old)
  set(new "")
  math(EXPR last_argument "${ARGC} - 1")
  foreach(i RANGE 2 ${last_argument})
    string(APPEND new "${ARGV${i}}")
  endforeach()
  set(path "${TO}/procpool/detail/${file}")
  file(READ "${path}" text)
  string(FIND "${text}" "${old}" first)
  string(FIND "${text}" "${old}" last REVERSE)
  if(first EQUAL -1 OR NOT first EQUAL last)
    message(FATAL_ERROR "mutate.cmake: this is to be in ${file} once, and is not:\n${old}\n"
      "The code has changed: say in tests/breakpoints/mutate.cmake where the bug is now.")
  endif()
  string(REPLACE "${old}" "${new}" text "${text}")
  file(WRITE "${path}" "${text}")
endfunction()

# 1: a worker does not say what it starts: it is run again when it has killed its worker.
mutate(shared_memory/lane_protocol.hpp
  "  replies.claimed.store(number, std::memory_order_seq_cst);"
  "  if (::seeded_bug != 1) replies.claimed.store(number, std::memory_order_seq_cst);")

# 2: a reply is published before its bytes are there.
mutate(shared_memory/worker_loop.hpp
  "    if (inline_size != 0) std::memcpy(at"
  "    if (::seeded_bug == 2) protocol::publish(requests_, replies_, number);\n"
  "    if (inline_size != 0) std::memcpy(at")

# 3: what a dead worker had started goes back into the queue.
mutate(scheduler/scheduler.hpp
  "    lose_started(i, end, done);"
  "    if (::seeded_bug != 3) lose_started(i, end, done);")

# 4: what a dead worker had published is not looked at.
mutate(scheduler/scheduler.hpp
  "    while (collect(i)) {"
  "    while (::seeded_bug != 4 && collect(i)) {")

# 5: workers do not die with the zygote.
mutate(shared_memory/worker_main.hpp
  "  ::prctl(PR_SET_PDEATHSIG, SIGKILL);"
  "  if (::seeded_bug != 5) ::prctl(PR_SET_PDEATHSIG, SIGKILL);")

# 6: nor do they see that it was dead before they asked for that.
mutate(shared_memory/worker_main.hpp
  "  if (::getppid() != zygote) "
  "  if (::seeded_bug != 6 && ::getppid() != zygote) ")

# 7: the zygote does not kill its workers when the application is gone.
mutate(shared_memory/zygote.hpp
  "      if (each.pid != 0 && !kill_group(each.pid)) all_killed = false;"
  "      if (::seeded_bug != 7 && each.pid != 0 && !kill_group(each.pid)) all_killed = false;")

# 8: a worker that dies when it is ready, but others are not, is replaced by nobody, and waited for.
mutate(scheduler/crew.hpp
  "    if (served && (complete_ || departing_)) {"
  "    if (served && (::seeded_bug == 8 || complete_ || departing_)) {")
