# SPDX-License-Identifier: BSL-1.0
# cmake -DINCLUDE=DIR -DOUT=DIR -P seed_bugs.cmake
# Copies the library's headers and puts bugs into the copy, each asleep until the environment variable
# PROCPOOL_SEEDED_BUG names it.
include("${CMAKE_CURRENT_LIST_DIR}/../../cmake/patch_headers.cmake")
file(REMOVE_RECURSE "${OUT}")
file(COPY "${INCLUDE}/" DESTINATION "${OUT}")

file(COPY "${CMAKE_CURRENT_LIST_DIR}/seeded_bug.hpp" DESTINATION "${OUT}/procpool/detail")

function(seed file text replacement)
  patch_header("${file}" "${text}" "${replacement}" <procpool/detail/seeded_bug.hpp>)
endfunction()

# A worker that dies: the element it was running is run again; or fails with all that waited behind it; or never ends.
seed(scheduler/task_table.hpp
  "one.deaths++ < one.target->limits.retries"
  "(seeded_bug(\"claimed task runs again\") || one.deaths++ < one.target->limits.retries)"
)
seed(scheduler/task_table.hpp
  "std::max(std::min(port.claimed(), settled + 1), under.number)"
  "seeded_bug(\"a death fails what waits\") ? port.last()\n\
        : std::max(std::min(port.claimed(), settled + 1), under.number)"
)
seed(scheduler/worker_end.hpp
  "for (const auto& [what, why] : lost) {"
  "for (const auto& [what, why] : lost) {\n    if (seeded_bug(\"lost task never ends\")) continue;"
)
# What it had published is not read first.
seed(scheduler/scheduler.hpp
  "    while (collect(i)) {\n    }\n    leftovers done;\n    lose_started("
  "    while (!seeded_bug(\"death before replies\") && collect(i)) {\n    }\n    leftovers done;\n    lose_started("
)
# A task that is out of time is killed, but what is behind it may start meanwhile.
seed(scheduler/watchdog.hpp
  "if (!table_.recall(i, number, done) || workers_.at(i).running() != number) return false;"
  "if (!seeded_bug(\"a kill hits what comes next\") &&\n\
        (!table_.recall(i, number, done) || workers_.at(i).running() != number)) return false;"
)
# Its place stays empty.
seed(scheduler/crew.hpp
  "} else if (replaces_) {"
  "} else if (replaces_ && !(seeded_bug(\"not replaced\") && record.generation % 64 == 0)) {"
)
# Processes that stay.
seed(shared_memory/worker_main.hpp
  "::prctl(PR_SET_PDEATHSIG, SIGKILL);"
  "if (!seeded_bug(\"no death signal\")) ::prctl(PR_SET_PDEATHSIG, SIGKILL);"
)
seed(shared_memory/zygote.hpp
  "if (each.pid != 0 && !kill_group(each.pid)) all_killed = false;"
  "if (each.pid != 0 && !seeded_bug(\"workers outlive the parent\") && !kill_group(each.pid)) all_killed = false;"
)
seed(shared_memory/zygote.hpp
  "    ::kill(-pid, SIGKILL);"
  "    if (!seeded_bug(\"children of workers stay\")) ::kill(-pid, SIGKILL);"
)
# What a pool leaves behind.
seed(shared_memory/forked_workers.hpp
  "  void release() noexcept {"
  "  void release() noexcept {\n    seeded_leaks();"
)
seed(shared_memory/forked_workers.hpp
  "    auto [ours, theirs] = make_registered(make_message_sockets);"
  "    seeded_slowdown();\n    auto [ours, theirs] = make_registered(make_message_sockets);"
)
