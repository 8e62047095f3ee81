// SPDX-License-Identifier: BSL-1.0
// Catch2 version 3 under the names of version 2, for the tests.
#pragma once

#include <catch2/catch_all.hpp>

namespace Catch {
using Matchers::ContainsSubstring;
using Matchers::EndsWith;
using Matchers::Matches;
using Matchers::StartsWith;

inline auto Contains(const std::string& text) { return Matchers::ContainsSubstring(text); }

namespace Matchers {
template <std::size_t N>
auto Contains(const char (&text)[N]) {
  return ContainsSubstring(text);
}
}  // namespace Matchers
}  // namespace Catch
