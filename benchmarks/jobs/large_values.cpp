// SPDX-License-Identifier: BSL-1.0
// J4: an array of doubles as argument into a vector, as argument read in place, as result, and as a handle.
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include <procpool/procpool.hpp>

#include "common/memory.hpp"
#include "common/report.hpp"
#include "common/timing.hpp"
#include "floors/copies.hpp"
#include "jobs/call_latency.hpp"
#include "jobs/jobs.hpp"

namespace bench {

namespace {

using doubles = std::vector<double>;

double ends_of_vector(const doubles& all) { return all.front() + all.back(); }
double ends_of_view(std::span<const double> all) { return all.front() + all.back(); }
double ends_of_array(const procpool::shared_array<double>& all) { return all[0] + all[all.size() - 1]; }
doubles ones(std::size_t count) { return doubles(count, 1.0); }

int times_for(std::size_t mebibytes) { return mebibytes == 1 ? scaled(200, 5) : scaled(mebibytes == 64 ? 6 : 3, 2); }

template <class Call>
samples time_calls(int times, Call call) {
  samples ns;
  for (int i = -2; i != times; ++i) {
    const stopwatch since;
    const double answer = call();
    const double taken = since.ns();
    if (answer != 2) throw std::logic_error("a large value: a wrong result");
    if (i >= 0) ns.add(taken);
  }
  return ns;
}

template <class Call>
void emit_bandwidth(const std::string& job, std::size_t mebibytes, Call call) {
  const double bytes = static_cast<double>(mebibytes * mebibyte);
  emit(procpool_impl, job, "bw", bytes / time_calls(times_for(mebibytes), call).median(), "GB/s");
}

std::size_t count_of(std::size_t mebibytes) { return mebibytes * mebibyte / sizeof(double); }

void argument(const std::string& job, std::size_t mebibytes, bool kept_heap) {
  emit_copy_floor(mebibytes, kept_heap ? receiver::builds_vector_in_kept_heap : receiver::builds_vector,
                  times_for(mebibytes));
  procpool::pool_options options{.processes = workers};
  if (kept_heap) options.initializer = keep_heap;
  procpool::process_pool pool{options};
  const doubles all = ones(count_of(mebibytes));
  emit_bandwidth(job, mebibytes, [&] { return pool.apply(ends_of_vector, all); });
}

void view(const std::string& job, std::size_t mebibytes) {
  emit_copy_floor(mebibytes, receiver::looks, times_for(mebibytes));
  procpool::process_pool pool{workers};
  const doubles all = ones(count_of(mebibytes));
  emit_bandwidth(job, mebibytes, [&] { return pool.apply(ends_of_view, std::span<const double>(all)); });
}

void result(const std::string& job, std::size_t mebibytes) {
  emit_copy_floor(mebibytes, receiver::builds_vector, times_for(mebibytes));
  procpool::process_pool pool{workers};
  emit_bandwidth(job, mebibytes, [&] { return ends_of_vector(pool.apply(ones, count_of(mebibytes))); });
}

/// An int is sent beside it, as a handle should cost little more.
void handle(const std::string& job, std::size_t mebibytes) {
  procpool::process_pool pool{workers};
  const auto array = pool.make_shared_array<double>(count_of(mebibytes));
  for (double& each : array) each = 1;
  emit(procpool_impl, job, "int_p50", call_latency(pool, scaled(5000, 50)).median() / 1e3, "us");
  emit_latency(procpool_impl, job, time_calls(scaled(5000, 50), [&] { return pool.apply(ends_of_array, array); }));
}

}  // namespace

void add_large_values(job_list& jobs) {
  for (const std::size_t size : {1u, 64u, 256u}) {
    const auto add = [&](const std::string& kind, const std::string& suffix, auto run) {
      const std::string name = "J4-" + kind + "-" + std::to_string(size) + "MiB" + suffix;
      jobs.push_back({name, [name, size, run] { run(name, size); }});
    };
    add("arg", "", [](auto& name, std::size_t mebibytes) { argument(name, mebibytes, false); });
    add("arg", "-kept", [](auto& name, std::size_t mebibytes) { argument(name, mebibytes, true); });
    add("view", "", view);
    add("res", "", result);
    add("shared", "", handle);
  }
}

}  // namespace bench
