// SPDX-License-Identifier: BSL-1.0
// What procpool_bench can measure. All pools have their default options, and two workers unless the job says how many.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace bench {

/// A job emits its results under its own name and what it compares them with under that of a floor.
struct job {
  std::string name;
  std::function<void()> run;
};
using job_list = std::vector<job>;

constexpr int workers = 2;
inline const std::string procpool_impl = "procpool";

void add_calls(job_list& jobs);           // J1
void add_tiny_tasks(job_list& jobs);      // J2
void add_maps(job_list& jobs);            // J3
void add_large_values(job_list& jobs);    // J4
void add_processor_work(job_list& jobs);  // J5, J7
void add_start_and_stop(job_list& jobs);  // J6
void add_footprint(job_list& jobs);       // J8
void add_kills(job_list& jobs);           // J9
void add_scaling(job_list& jobs);         // J10

}  // namespace bench
