// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <procpool/detail/posix/usable_memory.hpp>

namespace procpool::detail {

/// How much touched memory each arena of a pool keeps when nothing lies in it, since to touch fresh memory costs several
/// times what it costs to copy into it. Together a sixteenth of the memory that the process may use: a quarter of that
/// for large arguments, half for the workers' results, and a quarter for what else the lanes have to hold.
struct kept_memory {
  std::size_t arguments = 0;
  std::size_t requests = 0;  ///< of each lane
  std::size_t replies = 0;   ///< of each lane

  explicit kept_memory(std::size_t workers) : kept_memory(workers, usable_here()) {}
  kept_memory(std::size_t workers, std::uint64_t memory) noexcept {
    const auto quarter = static_cast<std::size_t>(memory / 16 / 4);
    arguments = quarter;
    requests = quarter / workers;
    replies = 2 * quarter / workers;
  }

 private:
  /// Asked once, as pools are made often.
  static std::uint64_t usable_here() {
    static const std::uint64_t bytes = usable_memory();
    return bytes;
  }
};

}  // namespace procpool::detail
