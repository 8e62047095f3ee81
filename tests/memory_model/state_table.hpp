// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace memory_model {

/// The states that have been seen, by a hash of 64 bits, each with a number.
class state_table {
 public:
  /// The state's number, and whether the state is new.
  std::pair<double*, bool> insert(std::uint64_t hash) {
    if (2 * (count_ + 1) > entries_.size()) grow();
    entry& here = entries_[find(hash)];
    const bool fresh = here.hash == 0;
    if (fresh) {
      here.hash = hash | 1U;
      ++count_;
    }
    return {&here.number, fresh};
  }

  double& at(std::uint64_t hash) { return entries_[find(hash)].number; }

 private:
  struct entry {
    std::uint64_t hash = 0;
    double number = 0;
  };

  std::size_t find(std::uint64_t hash) const {
    std::size_t i = hash >> 20 & (entries_.size() - 1);
    while (entries_[i].hash != 0 && entries_[i].hash != (hash | 1U)) i = (i + 1) & (entries_.size() - 1);
    return i;
  }

  void grow() {
    std::vector<entry> old(entries_.empty() ? 1024 : 2 * entries_.size());
    old.swap(entries_);
    for (const entry& each : old) {
      if (each.hash != 0) entries_[find(each.hash)] = each;
    }
  }

  std::vector<entry> entries_;
  std::size_t count_ = 0;
};

}  // namespace memory_model
