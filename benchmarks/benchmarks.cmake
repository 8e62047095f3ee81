# SPDX-License-Identifier: BSL-1.0
# What compare.sh runs: procpool_bench, and the peers that it is compared with.

# benchmark_program(NAME SOURCE...): optimised, whatever the rest is built for.
function(benchmark_program name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${procpool_warnings} -O2 -DNDEBUG)
  target_compile_features(${name} PRIVATE cxx_std_20)
  target_link_libraries(${name} PRIVATE Threads::Threads)
  set_target_properties(${name} PROPERTIES CXX_EXTENSIONS OFF)
endfunction()

file(GLOB job_sources CONFIGURE_DEPENDS jobs/*.cpp)
benchmark_program(procpool_bench main.cpp ${job_sources})
target_link_libraries(procpool_bench PRIVATE procpool::procpool)

# The same library, but for the headers that spin before they sleep.
set(no_spin_headers "${CMAKE_CURRENT_BINARY_DIR}/no_spin")
add_custom_command(OUTPUT "${no_spin_headers}.stamp"
  COMMAND "${CMAKE_COMMAND}" "-DINCLUDE=${PROJECT_SOURCE_DIR}/include" "-DOUT=${no_spin_headers}"
          -P "${CMAKE_CURRENT_SOURCE_DIR}/no_spin/do_not_spin.cmake"
  COMMAND "${CMAKE_COMMAND}" -E touch "${no_spin_headers}.stamp"
  DEPENDS no_spin/do_not_spin.cmake ${procpool_headers}
)
benchmark_program(procpool_bench_no_spin no_spin/main.cpp)
target_include_directories(procpool_bench_no_spin BEFORE PRIVATE "${no_spin_headers}")
target_link_libraries(procpool_bench_no_spin PRIVATE procpool::procpool)
set_source_files_properties(no_spin/main.cpp PROPERTIES OBJECT_DEPENDS "${no_spin_headers}.stamp")
add_dependencies(procpool_bench procpool_bench_no_spin)

# What scaling.sh measures.
benchmark_program(procpool_scaling scaling/scaling.cpp)
target_link_libraries(procpool_scaling PRIVATE procpool::procpool)

# ---- peers ---------------------------------------------------------------------------------------------------------
benchmark_program(thread_pool_bench peers/thread_pool.cpp)
benchmark_program(message_queue_bench peers/message_queue.cpp)
target_link_libraries(message_queue_bench PRIVATE Boost::headers rt)
find_package(TBB QUIET)
if(TBB_FOUND)
  benchmark_program(onetbb_bench peers/onetbb.cpp)
  target_link_libraries(onetbb_bench PRIVATE TBB::tbb)
else()
  message(STATUS "procpool: no oneTBB found; it will be missing among the peers")
endif()

# ---- that all of it works ------------------------------------------------------------------------------------------
find_package(Python3 COMPONENTS Interpreter QUIET)
if(Python3_FOUND)
  add_test(NAME "benchmarks: every job and every peer has results"
    COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/smoke_test.py" "${CMAKE_CURRENT_BINARY_DIR}"
  )
  set_tests_properties("benchmarks: every job and every peer has results"
    PROPERTIES TIMEOUT 300 LABELS benchmarks ENVIRONMENT "BENCH_SCALE=0.002"
  )
  add_test(NAME "benchmarks: the model of scaling has its numbers"
    COMMAND "${Python3_EXECUTABLE}" -B "${CMAKE_CURRENT_SOURCE_DIR}/scaling/model.py" $<TARGET_FILE:procpool_scaling>
            --rounds 1
  )
  set_tests_properties("benchmarks: the model of scaling has its numbers"
    PROPERTIES TIMEOUT 300 LABELS benchmarks ENVIRONMENT "BENCH_SCALE=0.02"
               PASS_REGULAR_EXPRESSION "\\n.*256 .* million"
  )
endif()
