// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <string>
#include <vector>

namespace bench {

/// The jobs asked for on the command line: J1, J2, …; all, if there is none.
class asked_jobs {
 public:
  asked_jobs(char** first, char** last) : names_(first, last) {}
  bool has(const char* name) const { return names_.empty() || std::ranges::find(names_, name) != names_.end(); }

 private:
  std::vector<std::string> names_;
};

}  // namespace bench
