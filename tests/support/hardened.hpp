// SPDX-License-Identifier: BSL-1.0
// What the tests of hardening share.
#pragma once

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/hardening.hpp>

namespace support {

inline int error_of(long result) { return result == -1 ? errno : 0; }
inline bool is_refusal(int error) { return error == EPERM || error == EACCES; }

/// Kernels as far as landlock goes: what this one has, what older ones have, and none.
inline constexpr int no_landlock = -ENOSYS;
inline std::vector<int> landlock_versions(std::vector<int> older) {
  const int here = procpool::detail::landlock::version();
  std::erase_if(older, [here](int version) { return version >= here; });
  if (here > 0) older.push_back(here);
  return older;
}
inline std::vector<int> all_landlock_versions() { return landlock_versions({5, 2, 1, no_landlock}); }

/// An initializer that hardens as on a kernel with that version of landlock.
inline std::function<void()> hardened_on(int version, procpool::hardening_options options = {}) {
  options.best_effort = version < 0;
  return [=] { procpool::detail::harden(options, version); };
}

inline bool can_harden() {
  if (procpool::detail::landlock::version() > 0) return true;
  WARN("not run: this system has no landlock");
  return false;
}

/// A directory of its own, with a file in it, for as long as it lives.
class scratch_directory {
 public:
  scratch_directory() {
    if (::mkdtemp(name_.data()) == nullptr) std::abort();
    std::ofstream(path() / "file") << "text";
  }
  scratch_directory(const scratch_directory&) = delete;
  scratch_directory& operator=(const scratch_directory&) = delete;
  ~scratch_directory() { std::filesystem::remove_all(path()); }

  std::filesystem::path path() const { return name_; }

 private:
  std::string name_ = std::filesystem::temp_directory_path() / "procpool_hardening.XXXXXX";
};

}  // namespace support
