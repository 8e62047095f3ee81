// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <sys/sysinfo.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>

#include <procpool/detail/shared_memory/layout.hpp>

namespace procpool::detail {

/// The bytes of the mapping around `address` that are swapped out (proc(5), smaps).
inline std::uint64_t swapped_bytes(std::uintptr_t address) noexcept {
  struct sysinfo system{};
  if (::sysinfo(&system) == 0 && system.totalswap == system.freeswap) return 0;  // it would take a while to read smaps
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> maps(std::fopen("/proc/self/smaps", "re"), &std::fclose);
  bool here = false;
  char line[512];
  while (maps && std::fgets(line, sizeof(line), maps.get()) != nullptr) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long long kib = 0;
    if (std::sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
      if (here) break;
      here = begin <= address && address < end;
    } else if (here && std::sscanf(line, "Swap: %llu kB", &kib) == 1) {
      return kib * 1024;
    }
  }
  return 0;
}

/// Whether there is memory behind so many bytes of a shared mapping: their pages have been written, and are in memory
/// (mincore(2)) or swapped out. To read where nobody has written would make the system find memory for it. Takes time
/// for the memory that is there, and none for what is not. True where the kernel does not tell.
inline bool backed(const void* address, std::size_t size) noexcept {
  const auto first = reinterpret_cast<std::uintptr_t>(address);
  const std::uintptr_t end = round_up(first + size, lane_page);
  std::uintptr_t at = first / lane_page * lane_page;
  std::uint64_t missing = 0;
  std::uint64_t swapped = 0;
  unsigned char present[1024];
  while (at < end) {
    const std::size_t pages = std::min((end - at) / lane_page, sizeof(present));
    if (::mincore(reinterpret_cast<void*>(at), pages * lane_page, present) != 0) return true;
    const auto absent = std::count_if(present, present + pages, [](unsigned char page) { return (page & 1) == 0; });
    if (absent != 0 && missing == 0) swapped = swapped_bytes(at);
    missing += static_cast<std::uint64_t>(absent) * lane_page;
    if (missing > swapped) return false;
    at += pages * lane_page;
  }
  return true;
}

}  // namespace procpool::detail
