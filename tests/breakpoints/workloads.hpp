// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "board.hpp"

namespace breakpoints {

/// Something that an application does with a pool, round after round, judging what comes of it.
class workload {
 public:
  virtual ~workload() = default;
  /// One round; what became of it is on the board. Throws if something hangs.
  virtual void run() = 0;
};

/// Names that make_workload() knows.
std::vector<std::string> workload_names();

/// To be called in the process that is the application. Throws std::invalid_argument for a name that it does not know.
std::unique_ptr<workload> make_workload(const std::string& name, board& shared);

}  // namespace breakpoints
