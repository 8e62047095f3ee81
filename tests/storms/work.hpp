// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include <procpool/procpool.hpp>

#include "history.hpp"
#include "report.hpp"

namespace storms {

// What the tasks do. All of it follows from the id, so that the parent knows what must come back.

enum class manner { tiny, spin, sleep, throws };

inline manner manner_of(std::uint64_t id) {
  const std::uint64_t roll = mix(id) % 100;
  return roll < 60 ? manner::tiny : roll < 80 ? manner::spin : roll < 98 ? manner::sleep : manner::throws;
}
inline bool throws(std::uint64_t id) { return manner_of(id) == manner::throws; }
inline std::uint64_t result_of(std::uint64_t id) { return mix(id ^ 0x5eed); }

/// Runs the task with that id.
inline std::uint64_t work(std::uint64_t id) {
  history::note_run(id);
  switch (manner_of(id)) {
    case manner::tiny:
      break;
    case manner::spin:
      for (const auto until = clock_type::now() + std::chrono::microseconds(mix(id) % 300);
           clock_type::now() < until;) {
      }
      break;
    case manner::sleep:
      std::this_thread::sleep_for(std::chrono::microseconds(mix(id) % 1000));
      break;
    case manner::throws:
      throw std::out_of_range(std::to_string(id));
  }
  return result_of(id);
}

/// For results that come in any order.
inline std::uint64_t work_named(std::uint64_t id) {
  work(id);
  return id;
}

/// Up to 200 KB, most of them more than fits in a lane's ring.
inline std::string large_value(std::uint64_t id) {
  std::string text(1000 + mix(id) % 200'000, '\0');
  for (std::size_t i = 0; i < text.size(); i += 64) text[i] = static_cast<char>(mix(id + i));
  text.back() = static_cast<char>(id);
  return text;
}
inline std::string work_large(std::uint64_t id, std::string argument) {
  const bool right = argument == large_value(id + 1);
  work(id);
  return right ? large_value(id) : "the argument is wrong";
}

inline procpool::shared_array<std::uint64_t> work_array(std::uint64_t id, procpool::shared_array<std::uint64_t> in) {
  work(id);
  auto out = procpool::make_shared_array<std::uint64_t>(in.size());
  for (std::size_t i = 0; i != in.size(); ++i) out[i] = in[i] ^ id;
  return out;
}

inline std::uint64_t add(std::uint64_t a, std::uint64_t b) { return a + b; }

}  // namespace storms
