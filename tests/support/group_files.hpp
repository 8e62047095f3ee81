// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include <catch2/catch.hpp>
#include <procpool/detail/posix/cgroups.hpp>

namespace support {

/// Control group files of the test's own.
class group_files {
 public:
  group_files() {
    std::string name = (std::filesystem::temp_directory_path() / "procpool-groups-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  group_files(const group_files&) = delete;
  group_files& operator=(const group_files&) = delete;
  ~group_files() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }

  void write(const std::string& path, const std::string& text) const {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  procpool::detail::control_groups where() const { return {(root_ / "membership").string(), root_.string()}; }

 private:
  std::filesystem::path root_;
};

}  // namespace support
