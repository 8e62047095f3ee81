// SPDX-License-Identifier: BSL-1.0
#include <procpool/detail/posix/usable_cpus.hpp>

#include <sched.h>

#include <optional>
#include <thread>

#include <catch2/catch.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/options.hpp>

#include "support/group_files.hpp"

using namespace procpool::detail;
using support::group_files;

namespace {

std::optional<double> quota_of(const group_files& files) { return cgroup_cpu_quota(files.where()); }

}  // namespace

TEST_CASE("the CPU quota is the least of the group and its ancestors", "[usable_cpus]") {
  const group_files files;
  CHECK_FALSE(quota_of(files));  // no file at all
  SECTION("version 2") {
    files.write("membership", "0::/a/b\n");
    CHECK_FALSE(quota_of(files));
    files.write("a/b/cpu.max", "max 100000\n");
    CHECK_FALSE(quota_of(files));
    files.write("a/cpu.max", "150000 100000\n");
    CHECK(quota_of(files) == 1.5);
    files.write("a/b/cpu.max", "400000 100000\n");
    CHECK(quota_of(files) == 1.5);
    files.write("a/b/cpu.max", "50000 100000\n");
    CHECK(quota_of(files) == 0.5);
  }
  SECTION("version 2, in a container that is its own root") {
    files.write("membership", "0::/\n");
    files.write("cpu.max", "300000 100000\n");
    CHECK(quota_of(files) == 3);
  }
  SECTION("version 1, a path of the host that is not mounted here") {
    files.write("membership", "5:cpuset:/x\n4:cpu,cpuacct:/docker/0123\n0::/\n");
    files.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    files.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK_FALSE(quota_of(files));
    files.write("cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
    CHECK(quota_of(files) == 2.5);
  }
  SECTION("nonsense is no limit") {
    files.write("membership", "nonsense\n0::\n");
    files.write("cpu.max", "0 0\n");
    CHECK_FALSE(quota_of(files));
    files.write("cpu.max", "");
    CHECK_FALSE(quota_of(files));
  }
}

TEST_CASE("the affinity mask bounds the default number of workers", "[usable_cpus]") {
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cpus() <= affinity_cpus());
  int within = 0;
  std::thread([&within] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(static_cast<unsigned>(::sched_getcpu()), &one);
    if (::sched_setaffinity(0, sizeof(one), &one) == 0) within = make_engine_setup({}).processes;
  }).join();
  CHECK(within == 1);
}
