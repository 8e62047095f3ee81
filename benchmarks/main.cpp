// SPDX-License-Identifier: BSL-1.0
// procpool_bench [JOB...]: measures procpool and what the system itself costs for the same, and prints a line of JSON
// for each result. JOB is a job, or what a group of them has in front of a hyphen: J1 is J1, J1-gap10ms and so on;
// default: all. --list prints them. The environment's BENCH_SCALE multiplies repetitions; BENCH_FULL=1 adds the largest
// sizes.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "jobs/jobs.hpp"

namespace {

bench::job_list all_jobs() {
  bench::job_list jobs;
  bench::add_calls(jobs);
  bench::add_tiny_tasks(jobs);
  bench::add_maps(jobs);
  bench::add_large_values(jobs);
  bench::add_processor_work(jobs);
  bench::add_start_and_stop(jobs);
  bench::add_footprint(jobs);
  bench::add_kills(jobs);
  bench::add_scaling(jobs);
  return jobs;
}

bool is_of(const bench::job& job, const std::string& asked) {
  return job.name == asked || job.name.compare(0, asked.size() + 1, asked + "-") == 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bench::job_list jobs = all_jobs();
  if (argc == 2 && std::strcmp(argv[1], "--list") == 0) {
    for (const bench::job& job : jobs) std::puts(job.name.c_str());
    return 0;
  }
  const std::vector<std::string> asked(argv + 1, argv + argc);
  for (const std::string& name : asked) {
    if (std::ranges::none_of(jobs, [&](const bench::job& job) { return is_of(job, name); })) {
      std::fprintf(stderr, "procpool_bench: no job %s; --list prints what there is\n", name.c_str());
      return 2;
    }
  }
  int status = 0;
  for (const bench::job& job : jobs) {
    if (!asked.empty() && std::ranges::none_of(asked, [&](const std::string& name) { return is_of(job, name); }))
      continue;
    try {
      job.run();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "procpool_bench: %s: %s\n", job.name.c_str(), error.what());
      status = 1;
    }
  }
  return status;
}
