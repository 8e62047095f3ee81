// SPDX-License-Identifier: BSL-1.0
#include <procpool/detail/posix/usable_memory.hpp>

#include <cstdint>

#include <catch2/catch.hpp>
#include <procpool/detail/shared_memory/kept_memory.hpp>

#include "support/group_files.hpp"

using namespace procpool::detail;
using support::group_files;

TEST_CASE("usable memory is the machine's, or the least that the group and its ancestors grant", "[usable_memory]") {
  const group_files files;
  const auto usable = [&] { return usable_memory(files.where()); };
  const std::uint64_t all = usable();  // no file at all
  constexpr std::uint64_t mib = std::uint64_t{1} << 20;
  REQUIRE(all > 64 * mib);
  SECTION("version 2") {
    files.write("membership", "0::/a/b\n");
    CHECK(usable() == all);
    files.write("a/b/memory.max", "max\n");
    CHECK(usable() == all);
    files.write("a/memory.max", "33554432\n");
    CHECK(usable() == 32 * mib);
    files.write("a/b/memory.max", "16777216\n");
    CHECK(usable() == 16 * mib);
  }
  SECTION("version 1") {
    files.write("membership", "5:cpu:/x\n4:memory:/docker/0123\n0::/\n");
    files.write("memory/memory.limit_in_bytes", "9223372036854771712\n");
    CHECK(usable() == all);
    files.write("memory/docker/0123/memory.limit_in_bytes", "33554432\n");
    CHECK(usable() == 32 * mib);
  }
  SECTION("nonsense is no limit") {
    files.write("membership", "nonsense\n0::\n");
    files.write("memory.max", "");
    CHECK(usable() == all);
  }
}

TEST_CASE("what a pool keeps is a sixteenth of the memory, whatever the number of workers", "[usable_memory]") {
  constexpr std::uint64_t memory = std::uint64_t{24} << 30;
  for (const std::size_t workers : {1U, 2U, 7U, 64U, 1000U}) {
    CAPTURE(workers);
    const kept_memory kept(workers, memory);
    const std::uint64_t all = kept.arguments + workers * (kept.requests + kept.replies);
    CHECK(all <= memory / 16);
    CHECK(all > memory / 17);
  }
}
