// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstdint>
#include <memory>

#include <procpool/detail/codec/bytes.hpp>
#include <procpool/shared_array.hpp>

namespace procpool::detail {

/// The shared arrays beside bytes that never left the process: those of the writer.
class local_attachments final : public attachment_source {
 public:
  explicit local_attachments(const byte_writer& writer) noexcept : writer_(writer) {}

  std::shared_ptr<array_block> take(std::uint64_t identity) override {
    for (const std::shared_ptr<array_block>& block : writer_.attachments()) {
      if (block->identity() == identity) return block;
    }
    return nullptr;
  }

 private:
  const byte_writer& writer_;
};

}  // namespace procpool::detail
