// SPDX-License-Identifier: BSL-1.0
#include <procpool/detail/shared_memory/arena.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

#include "support/child_process.hpp"

using namespace procpool;
using namespace support;
using detail::lane_arena;

namespace {

/// Address space of which only the first bytes have memory behind them: a store to the others is a SIGBUS.
class scarce_space {
 public:
  static constexpr std::size_t bytes = std::size_t{16} << 20;

  explicit scarce_space(std::size_t backed) {
    const detail::unique_fd file(::memfd_create("scarce", MFD_CLOEXEC));
    if (::ftruncate(file.get(), static_cast<off_t>(backed)) != 0) throw std::runtime_error("ftruncate");
    void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (at == MAP_FAILED) throw std::runtime_error("mmap");
    begin_ = static_cast<std::byte*>(at);
  }
  scarce_space(const scarce_space&) = delete;
  scarce_space& operator=(const scarce_space&) = delete;
  ~scarce_space() { ::munmap(begin_, bytes); }

  std::byte* begin() const noexcept { return begin_; }

 private:
  std::byte* begin_;
};

/// Fills an arena with blocks of that size until there is no more room; how many there were.
std::size_t fill(lane_arena& arena, std::size_t size, std::vector<std::byte*>& blocks) {
  std::size_t count = 0;
  for (std::byte* block; (block = arena.allocate(size)) != nullptr; ++count) {
    std::memset(block, 0x5a, size);
    blocks.push_back(block);
  }
  return count;
}

}  // namespace

TEST_CASE("an arena whose memory ends anywhere says so, and touches nothing beyond", "[arena][memory]") {
  constexpr std::size_t page = detail::lane_page;
  const std::string said = in_child([] {
    for (std::size_t pages = 0; pages < 600; pages += pages < 20 ? 1 : 17) {
      for (const std::size_t size : {std::size_t{1000}, page - 64, 5 * page, 40 * page, 257 * page}) {
        const scarce_space space(pages * page);
        lane_arena arena(space.begin(), scarce_space::bytes, scarce_space::bytes);
        std::vector<std::byte*> blocks;
        const std::size_t before = fill(arena, size, blocks);
        if (before * size > pages * page) return std::string("more than there is");
        if (before == 0 && pages * page >= size + 3 * page) {
          return "no room for " + std::to_string(size) + " bytes in " + std::to_string(pages) + " pages";
        }
        for (std::byte* block : blocks) arena.deallocate(block);
        blocks.clear();
        if (fill(arena, size, blocks) != before) return std::string("room was lost");
      }
    }
    return std::string();
  });
  CHECK(said == "");
}

TEST_CASE("an arena keeps what it may keep, so that it is not touched anew", "[arena][memory]") {
  const std::string said = in_child([] {
    constexpr std::size_t all = std::size_t{64} << 20;
    constexpr std::size_t keep = std::size_t{16} << 20;
    constexpr std::size_t size = keep - (std::size_t{2} << 20);
    void* const at = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    lane_arena arena(static_cast<std::byte*>(at), all, keep);
    for (int round = 0; round != 3; ++round) {
      std::byte* const block = arena.allocate(size);
      if (block == nullptr) return std::string("no room");
      if (round != 0 && block[size - 1] != std::byte{1}) return std::string("it is other memory");
      block[size - 1] = std::byte{1};
      if (arena.used() < size) return std::string("it is said to be unused");
      arena.deallocate(block);
      if (arena.used() > size / 2) return std::string("it is said to be used");
    }
    return std::string();
  });
  CHECK(said == "");
}

TEST_CASE("a large arena gives its memory back, and can be used again", "[arena][memory]") {
  const std::string said = in_child([] {
    constexpr std::size_t all = std::size_t{64} << 20;
    constexpr std::size_t keep = std::size_t{16} << 20;
    void* const at = ::mmap(nullptr, all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    auto* const begin = static_cast<std::byte*>(at);
    lane_arena arena(begin, all, keep);
    for (int round = 0; round != 2; ++round) {
      std::byte* const small = arena.allocate(1000);
      std::byte* const large = arena.allocate(keep + 1);
      if (small == nullptr || large == nullptr) return "no room in round " + std::to_string(round);
      large[keep] = std::byte{1};
      arena.deallocate(large);
      arena.deallocate(small);
      if (arena.blocks() != 0) return std::string("blocks are left");
      unsigned char present = 0;
      const std::size_t last = static_cast<std::size_t>(large - begin) + keep;
      if (::mincore(begin + last / detail::lane_page * detail::lane_page, 1, &present) != 0)
        return std::string("mincore");
      if ((present & 1) != 0) return std::string("the memory is still there");
    }
    return std::string();
  });
  CHECK(said == "");
}
