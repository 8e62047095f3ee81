// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>

#include <procpool/detail/job.hpp>

namespace fuzz {

/// A job of static storage duration: nobody counts who refers to it, and nothing is done with its outcomes.
class idle_job final : public procpool::detail::parted_job {
 public:
  idle_job(const char* operation, std::size_t total) : parted_job(nullptr, operation, total) {}
  void retain() noexcept override {}
  void release() noexcept override {}
  bool settle(std::size_t, procpool::detail::reply&) noexcept override { return true; }
};

}  // namespace fuzz
