// SPDX-License-Identifier: BSL-1.0
// onetbb_bench [JOB...]: oneTBB's task_group and parallel_for with two threads, of which the caller is one: a call may
// run in it without a hand-over.
#include <oneapi/tbb.h>

#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "common/report.hpp"
#include "common/timing.hpp"
#include "common/work.hpp"
#include "peers/arguments.hpp"

namespace {

using namespace bench;
using indices = oneapi::tbb::blocked_range<std::size_t>;
const std::string impl = "tbb";

void time_calls() {
  samples ns;
  for (int i = 0; i != scaled(20'000, 100); ++i) {
    const stopwatch since;
    int out = 0;
    oneapi::tbb::task_group group;
    group.run([&] { out = increment(i); });
    group.wait();
    keep(out);
    ns.add(since.ns());
  }
  emit_latency(impl, "J1", ns);
}

void time_tiny_tasks() {
  const int tasks = scaled(200'000, 100);
  samples rates;
  for (int round = 0; round != 5; ++round) {
    const stopwatch since;
    std::vector<int> out(static_cast<std::size_t>(tasks));
    oneapi::tbb::task_group group;
    for (int i = 0; i != tasks; ++i) group.run([&out, i] { out[static_cast<std::size_t>(i)] = increment(i); });
    group.wait();
    rates.add(tasks / since.ms());
  }
  emit(impl, "J2", "rate", rates.median(), "ktask/s");
}

template <class Partitioner>
void time_map(const char* job, Partitioner partitioner) {
  std::vector<int> in(scaled<std::size_t>(1'000'000, 1000));
  std::iota(in.begin(), in.end(), 0);
  samples rates;
  for (int round = 0; round != 5; ++round) {
    const stopwatch since;
    std::vector<int> out(in.size());
    const auto body = [&](const indices& some) {
      for (std::size_t i = some.begin(); i != some.end(); ++i) out[i] = increment(in[i]);
    };
    oneapi::tbb::parallel_for(indices(0, in.size(), 1), body, partitioner);
    keep(out.back());
    rates.add(static_cast<double>(in.size()) / since.ms() / 1e3);
  }
  emit(impl, job, "rate", rates.median(), "Mitem/s");
}

void time_work(const asked_jobs& asked) {
  const std::uint64_t steps = steps_of_a_millisecond();
  if (asked.has("J5")) {
    const std::size_t tasks = tasks_of_efficiency();
    emit(impl, "J5", "efficiency",
         efficiency_of_two(
             tasks, steps,
             [&] { oneapi::tbb::parallel_for(std::size_t{0}, tasks, [=](std::size_t) { keep(burn(steps)); }); }),
         "");
  }
  if (!asked.has("J7")) return;
  const std::size_t tasks = tasks_of_skew();
  for (const auto& [name, place] : {std::pair{"first", std::size_t{0}}, {"mid", tasks / 2}, {"last", tasks}}) {
    emit(impl, std::string("J7-") + name + "-default", "makespan/ideal",
         makespan_of_two(tasks, place, steps,
                         [&, at = place] {
                           oneapi::tbb::parallel_for(std::size_t{0}, tasks + 1, [=](std::size_t i) {
                             keep(burn(i == at ? steps * tasks / 2 : steps));
                           });
                         }),
         "");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const asked_jobs asked(argv + 1, argv + argc);
  const oneapi::tbb::global_control two(oneapi::tbb::global_control::max_allowed_parallelism, 2);
  oneapi::tbb::parallel_for(0, 1000, [](int) { keep(burn(1000)); });  // its thread is there
  if (asked.has("J1")) time_calls();
  if (asked.has("J2")) time_tiny_tasks();
  if (asked.has("J3")) {
    time_map("J3-default", oneapi::tbb::auto_partitioner());
    time_map("J3-chunk1", oneapi::tbb::simple_partitioner());
  }
  if (asked.has("J5") || asked.has("J7")) time_work(asked);
}
