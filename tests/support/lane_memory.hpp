// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace support {

/// A mapping of this process that it shares with others.
struct shared_range {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  char permissions[8]{};

  std::uint64_t size() const { return end - begin; }
  bool readable() const { return permissions[0] == 'r'; }
  bool writable() const { return permissions[1] == 'w'; }
};

/// In the order of their addresses (proc(5), maps).
inline std::vector<shared_range> shared_ranges() {
  std::vector<shared_range> all;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    shared_range one;
    char dash = 0;
    std::string permissions;
    std::istringstream fields(line);
    fields >> std::hex >> one.begin >> dash >> one.end >> permissions;
    if (permissions.size() != 4 || permissions[3] != 's') continue;
    permissions.copy(one.permissions, 4);
    all.push_back(one);
  }
  return all;
}

/// The memory that one pool shares with its workers, guard pages included. A `lane_memory` is made before the pool; its
/// members are called afterwards, in the parent or in tasks, which have it by the snapshot.
class lane_memory {
 public:
  lane_memory() {
    for (const shared_range& each : shared_ranges()) before_.insert(each.begin);
  }

  std::vector<shared_range> ranges() const {
    auto all = shared_ranges();
    std::erase_if(all, [this](const shared_range& each) { return before_.contains(each.begin); });
    return all;
  }
  /// Those of the lanes, without the guard pages: each is an arena as large as the memory for arguments, and more.
  std::vector<shared_range> halves() const {
    auto all = readable();
    if (!all.empty()) all.erase(std::ranges::min_element(all, {}, &shared_range::size));
    return all;
  }
  /// Where large arguments lie, without the guard pages.
  shared_range arguments() const { return std::ranges::min(readable(), {}, &shared_range::size); }
  /// In a worker: the half that it writes.
  shared_range replies() const { return find(true); }
  /// In a worker: the half that it reads.
  shared_range requests() const { return find(false); }

 private:
  std::vector<shared_range> readable() const {
    auto all = ranges();
    std::erase_if(all, [](const shared_range& each) { return !each.readable(); });
    return all;
  }
  shared_range find(bool writable) const {
    for (const shared_range& each : halves()) {
      if (each.writable() == writable) return each;
    }
    throw std::runtime_error("no such half");
  }

  std::set<std::uint64_t> before_;
};

}  // namespace support
