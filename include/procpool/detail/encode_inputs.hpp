// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cxxabi.h>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <ranges>
#include <type_traits>
#include <utility>
#include <vector>

#include <procpool/detail/job.hpp>

namespace procpool::detail {

/// What a task is called with for an element of the range: proxies such as vector<bool>::reference stay at home.
template <class Range>
using element_of = std::ranges::range_value_t<Range>;

/// `element`, a reference of some range, as the value type of that range; no copy unless it is a proxy.
template <class Value, class Element>
decltype(auto) as_value(Element&& element) {
  if constexpr (std::is_same_v<std::remove_cvref_t<Element>, Value>) {
    return std::forward<Element>(element);
  } else {
    return static_cast<Value>(std::forward<Element>(element));
  }
}

/// How many elements travel in one chunk when the caller leaves it open: about four chunks for each worker, so that
/// those that are done early can help those that are not.
constexpr std::size_t automatic_chunksize(std::size_t elements, std::size_t processes) noexcept {
  const std::size_t chunks = 4 * processes;
  return std::max<std::size_t>(1, elements / chunks + (elements % chunks != 0));
}

/// Small chunks share a block of inputs until it holds so much. It goes when the last of them has been sent.
inline constexpr std::size_t block_bytes = std::size_t{1} << 14;
inline constexpr std::size_t block_elements = 1024;

/// How many elements travel in one chunk.
struct chunk_sizes {
  std::size_t asked = 0;  ///< by the caller; 0: left open
  std::size_t processes = 1;
  /// So many cost little more than one, whatever was asked for: of those that a worker may run in one go a block, else 1.
  /// What waits behind a slow one is taken back all the same, element by element.
  std::size_t together = 1;

  /// Of a range of so many elements.
  std::size_t of(std::size_t elements) const noexcept {
    const std::size_t automatic = automatic_chunksize(elements, processes);
    return asked == 0 ? automatic : std::max(asked, std::min(together, automatic));
  }
};

/// chunk_sizes::together, where the arguments of a call take so many bytes.
constexpr std::size_t elements_together(std::size_t argument_bytes) noexcept {
  return std::clamp<std::size_t>(block_bytes / std::max<std::size_t>(argument_bytes, 1), 1, block_elements);
}

/// The encoded elements of a range, in chunks that have no job yet.
struct encoded_inputs {
  struct refusal {
    std::size_t element;
    std::exception_ptr why;
  };

  std::vector<chunk> chunks{};
  std::size_t total = 0;           ///< elements of the range
  std::vector<refusal> refused{};  ///< those that could not be encoded, and are in no chunk
};

/// At most so much memory is asked for before it is known that it is needed.
inline constexpr std::size_t reserved_bytes = std::size_t{1} << 20;

/// The chunk that goes on behind those in `chunks`, in the last one's block of inputs if there is room.
inline chunk& next_chunk(encoded_inputs& all, inputs_ptr& block) {
  if (!block || block->bytes.size() >= block_bytes || block->count() >= block_elements) block.reset(new inputs);
  all.chunks.push_back({.arguments = block, .offset = block->count(), .first = all.total});
  return all.chunks.back();
}

/// Takes every element of the range, each of which takes `size` bytes; `write(std::byte*, iterator, n)` writes the next
/// `n`, and advances the iterator.
template <std::ranges::input_range Range, class Write>
  requires std::ranges::sized_range<Range>
encoded_inputs encode_uniform_inputs(Range&& range, const chunk_sizes& sizes, std::size_t size, Write write) {
  encoded_inputs all;
  const auto total = static_cast<std::size_t>(std::ranges::size(range));
  const std::size_t chunksize = sizes.of(total);
  inputs_ptr block;
  auto at = std::ranges::begin(range);
  while (all.total != total) {
    chunk& next = next_chunk(all, block);
    next.count = std::min(chunksize, total - all.total);
    write(block->bytes.extend(next.count * size), at, next.count);
    block->end_elements(next.count, size);
    all.total += next.count;
  }
  return all;
}

/// Takes every element of the range and has `encode(byte_writer&, element)` write it. What the range throws comes out;
/// what `encode` throws too, or, with `keep_refused`, becomes a refusal.
template <std::ranges::input_range Range, class Encode>
encoded_inputs encode_inputs(Range&& range, const chunk_sizes& sizes, bool keep_refused, Encode encode) {
  encoded_inputs all;
  std::size_t chunksize = 0;
  if constexpr (std::ranges::sized_range<Range>)
    chunksize = sizes.of(static_cast<std::size_t>(std::ranges::size(range)));
  std::size_t room = 0;  // in the last chunk
  inputs_ptr block;      // of the last chunk, and of those before it while they are small
  for (auto&& element : range) {
    if (room == 0) {
      // How many elements there are may be known at the end only: then the chunks grow with what has come so far.
      room = chunksize != 0 ? chunksize : sizes.of(all.total);
      next_chunk(all, block);
    }
    const std::size_t bytes = block->bytes.size();
    const std::size_t attachments = block->bytes.attachments().size();
    try {
      encode(static_cast<byte_writer&>(block->bytes), std::forward<decltype(element)>(element));
      block->end_element();
      --room;
      if (++all.chunks.back().count == 1) {  // most elements are about as long as the first
        const std::size_t size = block->bytes.size() - bytes;
        block->bytes.reserve(bytes + size + size * std::min(room, reserved_bytes / std::max<std::size_t>(size, 1)));
      }
    } catch (const abi::__forced_unwind&) {
      throw;
    } catch (...) {
      if (!keep_refused) throw;
      block->bytes.truncate(bytes, attachments);
      all.refused.push_back({all.total, std::current_exception()});
      if (all.chunks.back().count == 0) all.chunks.pop_back();
      room = 0;  // the elements of a chunk are consecutive
    }
    ++all.total;
  }
  return all;
}

}  // namespace procpool::detail
