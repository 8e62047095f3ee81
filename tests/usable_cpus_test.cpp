// SPDX-License-Identifier: BSL-1.0
#include <procpool/detail/posix/usable_cpus.hpp>

#include <sched.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <catch2/catch.hpp>
#include <procpool/detail/engine_setup.hpp>
#include <procpool/options.hpp>

using namespace procpool::detail;

namespace {

/// Control group files of the test's own.
class groups {
 public:
  groups() {
    std::string name = (std::filesystem::temp_directory_path() / "procpool-groups-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  groups(const groups&) = delete;
  groups& operator=(const groups&) = delete;
  ~groups() { std::filesystem::remove_all(root_); }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::optional<double> quota() const { return cgroup_cpu_quota((root_ / "membership").string(), root_.string()); }

 private:
  std::filesystem::path root_;
};

}  // namespace

TEST_CASE("the CPU quota is the least of the group and its ancestors", "[usable_cpus]") {
  const groups files;
  CHECK_FALSE(files.quota());  // no file at all
  SECTION("version 2") {
    files.write("membership", "0::/a/b\n");
    CHECK_FALSE(files.quota());
    files.write("a/b/cpu.max", "max 100000\n");
    CHECK_FALSE(files.quota());
    files.write("a/cpu.max", "150000 100000\n");
    CHECK(files.quota() == 1.5);
    files.write("a/b/cpu.max", "400000 100000\n");
    CHECK(files.quota() == 1.5);
    files.write("a/b/cpu.max", "50000 100000\n");
    CHECK(files.quota() == 0.5);
  }
  SECTION("version 2, in a container that is its own root") {
    files.write("membership", "0::/\n");
    files.write("cpu.max", "300000 100000\n");
    CHECK(files.quota() == 3);
  }
  SECTION("version 1, a path of the host that is not mounted here") {
    files.write("membership", "5:cpuset:/x\n4:cpu,cpuacct:/docker/0123\n0::/\n");
    files.write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    files.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    CHECK_FALSE(files.quota());
    files.write("cpu,cpuacct/cpu.cfs_quota_us", "250000\n");
    CHECK(files.quota() == 2.5);
  }
  SECTION("nonsense is no limit") {
    files.write("membership", "nonsense\n0::\n");
    files.write("cpu.max", "0 0\n");
    CHECK_FALSE(files.quota());
    files.write("cpu.max", "");
    CHECK_FALSE(files.quota());
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
