// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// The kernel's interface (landlock(7)), which headers of older systems lack, or lack in part.
namespace landlock {

inline constexpr long create_ruleset_call = 444, add_rule_call = 445, restrict_self_call = 446;

inline constexpr std::uint64_t execute = 1 << 0, write_file = 1 << 1, read_file = 1 << 2, read_dir = 1 << 3,
                               make_char = 1 << 6, make_block = 1 << 11, all_of_version_1 = (1 << 13) - 1,
                               refer = 1 << 13,  // version 2, Linux 5.19: to link and rename across directories
    truncate = 1 << 14,                          // version 3, Linux 6.2
    ioctl_dev = 1 << 15;                         // version 5, Linux 6.10
inline constexpr std::uint64_t for_files = execute | write_file | read_file | truncate | ioctl_dev;
inline constexpr std::uint64_t scope_signal = 1 << 1;  // version 6, Linux 6.12

struct ruleset_attributes {
  std::uint64_t handled_files;
  std::uint64_t handled_network;
  std::uint64_t scoped;
};

struct [[gnu::packed]] path_beneath {
  std::uint64_t allowed;
  std::int32_t parent;
};

/// That of this kernel, from 1; -errno if it has none, or has it switched off.
inline int version() noexcept {
  constexpr int ask_for_version = 1;
  const long version = ::syscall(create_ruleset_call, nullptr, 0, ask_for_version);
  return version < 0 ? -errno : static_cast<int>(version);
}

}  // namespace landlock

/// What a process and all that it starts may do to files. Whatever it holds, a process in such a domain can no longer
/// reach into one that is not in it: by ptrace, by /proc/PID/mem, or, from version 6 on, by a signal.
class landlock_domain {
 public:
  using paths = std::vector<std::filesystem::path>;

  /// With files as before. `version`, from 1, is of the interface that is made use of. Throws std::system_error naming
  /// the call that failed.
  explicit landlock_domain(int version) {
    using namespace landlock;
    // Before there were scopes, a domain had to forbid something, or be allowed it everywhere.
    known_ = version >= 6 ? 0 : make_block | (version >= 2 ? refer : 0);
    create(version);
    if (known_ != 0) allow("/", known_);
  }

  /// With these files and no others. Throws std::system_error naming the call, or the path, that failed.
  landlock_domain(int version, const paths& readable, const paths& writable) {
    using namespace landlock;
    known_ = all_of_version_1;
    if (version >= 2) known_ |= refer;
    if (version >= 3) known_ |= truncate;
    if (version >= 5) known_ |= ioctl_dev;
    create(version);
    for (const auto& each : readable) allow(each, execute | read_file | read_dir);
    for (const auto& each : writable) allow(each, known_ & ~(execute | make_char | make_block));
    allow_what_all_need();
  }

  /// From now on and for ever, for this thread and what it starts. Needs no_new_privs.
  void enter() const { checked(::syscall(landlock::restrict_self_call, ruleset_.get(), 0), "landlock_restrict_self"); }

 private:
  void create(int version) {
    const landlock::ruleset_attributes attributes{known_, 0, version >= 6 ? landlock::scope_signal : 0};
    // A kernel that knows less takes the longer structure if what it does not know is 0.
    const long fd = ::syscall(landlock::create_ruleset_call, &attributes, sizeof(attributes), 0);
    ruleset_.reset(static_cast<int>(checked(fd, "landlock_create_ruleset")));
  }

  void allow(const std::filesystem::path& path, std::uint64_t rights) const {
    const unique_fd at(::open(path.c_str(), O_PATH | O_CLOEXEC));
    if (!at) throw_errno(("open " + path.string()).c_str());
    allow(at.get(), rights);
  }

  void allow(int at, std::uint64_t rights) const {
    struct stat status{};
    checked(::fstat(at, &status), "fstat");
    rights &= known_;
    if (!S_ISDIR(status.st_mode)) rights &= landlock::for_files;
    const landlock::path_beneath rule{rights, at};
    constexpr int rule_path_beneath = 1;
    checked(::syscall(landlock::add_rule_call, ruleset_.get(), rule_path_beneath, &rule, 0), "landlock_add_rule");
  }

  /// The devices that are no hardware, and the process's own directory in /proc.
  void allow_what_all_need() const {
    using namespace landlock;
    for (const char* device : {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}) {
      const unique_fd at(::open(device, O_PATH | O_CLOEXEC));
      if (at) allow(at.get(), read_file | write_file | truncate | ioctl_dev);
    }
    // Stays open: a rule is about an inode, and /proc would soon make another one for a directory that nobody holds.
    const int self = ::open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (self >= 0) allow(self, read_file | read_dir);
  }

  std::uint64_t known_ = 0;  ///< rights that rules may grant; those that none grants are refused
  unique_fd ruleset_;
};

}  // namespace procpool::detail
