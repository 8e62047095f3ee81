// SPDX-License-Identifier: BSL-1.0
// J1: one call after the other, int to int.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "floors/ping_pong.hpp"
#include "jobs/call_latency.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

using namespace std::chrono_literals;

void back_to_back() {
  emit_spin_floor();
  {
    procpool::process_pool pool{workers};
    emit_latency(procpool_impl, "J1", call_latency(pool, scaled(20'000, 100)));
  }
  emit_spin_floor();
}

/// The floor is taken with the same pause, and as it is back to back.
void after_a_pause(const std::string& name, std::chrono::nanoseconds pause, int calls) {
  emit_cross_floor<sleeping>("floor:futex", "pp-cross", scaled(1000, 20));
  emit_cross_floor<sleeping>("floor:futex", "pp-cross-" + name, calls, pause);
  procpool::process_pool pool{workers};
  emit_latency(procpool_impl, "J1-" + name, call_latency(pool, calls, pause));
}

/// How long the library spins is no option: the program beside this one is built from headers that do not spin.
void without_spinning(const std::string& job) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "procpool_bench_no_spin";
  std::string first = program;
  std::string second = job;
  char* const arguments[] = {first.data(), second.data(), nullptr};
  pid_t child = 0;
  if (::posix_spawn(&child, program.c_str(), nullptr, nullptr, arguments, environ) != 0) {
    throw std::runtime_error("cannot run " + program);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (status != 0) throw std::runtime_error(program + " failed");
}

}  // namespace

void add_calls(job_list& jobs) {
  jobs.push_back({"J1", back_to_back});
  for (const std::string name : {"J1-nospin-same", "J1-nospin-cross"}) {
    jobs.push_back({name, [name] { without_spinning(name); }});
  }
  jobs.push_back({"J1-gap200us", [] { after_a_pause("gap200us", 200us, scaled(2000, 20)); }});
  jobs.push_back({"J1-gap10ms", [] { after_a_pause("gap10ms", 10ms, scaled(100, 5)); }});
}

}  // namespace bench
