// SPDX-License-Identifier: BSL-1.0
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <catch2/catch.hpp>
#include <procpool/detail/posix/oom_kills.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/resources_unchanged.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/// A control group below that of this process, which a child of this process may enter, with little memory.
class small_group {
 public:
  small_group() {
    std::ifstream groups("/proc/self/cgroup");
    for (std::string line; std::getline(groups, line);) {
      const std::size_t memory = line.find(":memory:");
      if (memory != std::string::npos) make("/sys/fs/cgroup/memory" + line.substr(memory + 8), "memory.limit_in_bytes");
      if (line.starts_with("0::")) make("/sys/fs/cgroup" + line.substr(3), "memory.max");
      if (made_) return;
    }
  }
  small_group(const small_group&) = delete;
  small_group& operator=(const small_group&) = delete;
  ~small_group() {
    if (!path_.empty()) ::rmdir(path_.c_str());
  }

  bool is_there() const { return made_; }
  bool enter() const { return write("cgroup.procs", std::to_string(::getpid())); }

 private:
  void make(const std::string& parent, const char* limit) {
    const std::string path = parent + "/procpool_test." + std::to_string(::getpid());
    if (::mkdir(path.c_str(), 0755) != 0) return;
    path_ = path;
    made_ = write(limit, std::to_string(128 * mib));
    if (!made_) {
      ::rmdir(path_.c_str());
      path_.clear();
    }
  }
  bool write(const std::string& file, const std::string& text) const {
    std::ofstream to(path_ + "/" + file);
    return to && (to << text).flush();
  }

  std::string path_;
  bool made_ = false;
};

}  // namespace

TEST_CASE("the count of the control group that a process is in is read", "[oom]") {
  std::string root = "/tmp/procpool_oom.XXXXXX";
  REQUIRE(::mkdtemp(root.data()) != nullptr);
  const auto write = [&](const std::string& file, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(root + "/" + file).parent_path());
    std::ofstream(root + "/" + file) << text;
  };
  write("a/b/memory.events", "low 0\nhigh 3\nmax 12\noom 2\noom_kill 7\noom_group_kill 0\n");
  write("memory/c/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
  write("v2", "0::/a/b\n");
  write("v1", "9:cpu,cpuacct:/x\n4:memory:/c\n0::/\n");
  write("elsewhere", "4:memory:/gone\n0::/gone\n");
  CHECK(detail::oom_kills(detail::oom_kills_file(root + "/v2", root).get()) == 7u);
  CHECK(detail::oom_kills(detail::oom_kills_file(root + "/v1", root).get()) == 5u);
  CHECK(detail::oom_kills(detail::oom_kills_file(root + "/elsewhere", root).get()) == std::nullopt);
  CHECK(detail::oom_kills(detail::oom_kills_file(root + "/nothing", root).get()) == std::nullopt);
  std::filesystem::remove_all(root);
}

TEST_CASE("a worker that the OOM killer ends is told from one that somebody kills", "[oom][crash]") {
  resources_unchanged guard;
  const small_group group;
  if (!group.is_there()) {
    WARN("not run: this process may not make a control group that limits memory");
    return;
  }
  CHECK(in_child([&group] {
          if (!group.enter()) return std::string("cannot enter the group");
          process_pool pool{2};
          const auto take_too_much = [] {
            constexpr std::size_t size = 512 * mib;
            auto* const at = static_cast<volatile char*>(
                ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            for (std::size_t i = 0; i < size; i += 4096) at[i] = 1;
            return static_cast<int>(at[0]);
          };
          for (int i = 0; i != 2; ++i) {
            const std::string killed = text_of<worker_crashed>([&] { pool.apply(ways_to_die::raise_kill); });
            if (!killed.ends_with("(SIGKILL), not sent by the pool")) return killed;
            const std::string starved = text_of<worker_crashed>([&] { pool.apply(take_too_much); });
            if (starved.find("(SIGKILL), sent by the OOM killer") == std::string::npos) return starved;
          }
          return std::string();
        }) == "");
}
