// SPDX-License-Identifier: BSL-1.0
// procpool_bench_no_spin JOB: J1 with headers whose waits sleep at once, on one CPU or two. procpool_bench runs it.
#include <exception>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/cpus.hpp"
#include "floors/ping_pong.hpp"
#include "jobs/call_latency.hpp"

namespace {

using namespace bench;

/// The application, with the pool's own threads, runs on CPU `here` and the workers on CPU `there`.
void measure(const std::string& job, const std::string& floor, int here, int there) {
  const int calls = scaled(2000, 20);
  emit_latency("floor:futex", floor, ping_pong<sleeping>(calls, here, there));
  pin(here);
  procpool::process_pool pool{procpool::pool_options{.processes = 2, .initializer = [there] { pin(there); }}};
  emit_latency("procpool", job, call_latency(pool, calls));
}

}  // namespace

int main(int argc, char** argv) try {
  const std::string job = argc == 2 ? argv[1] : "";
  const std::vector<int> cpus = usable_cpus();
  if (job == "J1-nospin-same") {
    measure(job, "pp-same", cpus.front(), cpus.front());
  } else if (job == "J1-nospin-cross") {
    if (cpus.size() < 2) throw std::runtime_error("needs two CPUs");
    measure(job, "pp-cross", cpus[0], cpus[1]);
  } else {
    throw std::invalid_argument("J1-nospin-same or J1-nospin-cross");
  }
} catch (const std::exception& error) {
  std::cerr << "procpool_bench_no_spin: " << error.what() << '\n';
  return 1;
}
