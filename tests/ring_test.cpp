// SPDX-License-Identifier: BSL-1.0
// The writer's account of a ring, over memory that ends where the test says: what lies beyond is a SIGBUS.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <new>
#include <random>

#include <catch2/catch.hpp>
#include <procpool/detail/posix/unique_fd.hpp>
#include <procpool/detail/shared_memory/ring.hpp>

using namespace procpool::detail;

namespace {

constexpr std::size_t kib = 1024;
constexpr std::size_t largest = sizeof(reply_header) + ring_payload;  ///< that is ever placed

/// Of a ring; nothing can be had behind its first `bytes` bytes.
class ring_memory {
 public:
  explicit ring_memory(std::size_t bytes) : file_(::memfd_create("ring", MFD_CLOEXEC)) {
    allow(bytes);
    void* const at = ::mmap(nullptr, ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    bytes_ = static_cast<std::byte*>(at);
  }
  ring_memory(const ring_memory&) = delete;
  ring_memory& operator=(const ring_memory&) = delete;
  ~ring_memory() { ::munmap(bytes_, ring_bytes); }

  void allow(std::size_t bytes) {
    REQUIRE(::ftruncate(file_.get(), static_cast<off_t>(bytes)) == 0);
    size_ = bytes;
  }
  std::byte* bytes() const noexcept { return bytes_; }
  std::size_t size() const noexcept { return size_; }

 private:
  unique_fd file_;
  std::byte* bytes_ = nullptr;
  std::size_t size_ = 0;
};

/// Whether the kernel tells that there is no memory (madvise(2), MADV_POPULATE_WRITE).
bool told_of_full_memory() {
  const ring_memory none(0);
  return !populate(none.bytes(), lane_page);
}

}  // namespace

TEST_CASE("whatever has been prepared for fits when nothing is in use", "[ring]") {
  if (!told_of_full_memory()) return;
  const std::size_t size = GENERATE(as<std::size_t>{}, ring_start, 64 * kib, 128 * kib, ring_bytes);
  const ring_memory memory(size);
  const std::size_t grain = size == ring_start ? 8 : 160;
  ring_writer at_head(memory.bytes());
  std::size_t refused = 0;
  std::size_t around = 0;
  for (std::size_t offset = 0;; offset += grain) {
    for (std::size_t n = sizeof(reply_header); n <= largest; n += grain) {
      ring_writer ring = at_head;
      const std::uint64_t head = ring.head();
      if (!ring.prepare(n, head)) {
        // Half of what there is can always be placed.
        if (2 * (n + sizeof(reply_header)) <= size) FAIL("refused: " << n << " bytes at " << offset);
        ++refused;
        continue;
      }
      if (!ring.fits(n, head)) FAIL("never fits: " << n << " bytes at " << offset);
      const std::uint64_t at = ring.place(n);
      if (at % ring_bytes + n > size) FAIL("no memory: " << n << " bytes at " << at);
      if (at == head) continue;
      ++around;
      if (at % ring_bytes != 0 || at - head + n > ring_bytes) FAIL("too far: " << n << " bytes at " << at);
      const bool mark = at - head >= sizeof(reply_header);
      if (mark && head % ring_bytes + sizeof(reply_header) > size) FAIL("no memory for the mark at " << head);
    }
    if (!at_head.prepare(grain, at_head.head() - 1)) break;
    if (!at_head.fits(grain, at_head.head())) break;
    if (at_head.place(grain) >= ring_bytes) break;
  }
  CHECK(around > 0);
  CHECK((refused > 0) == (size == ring_start));
}

TEST_CASE("what has been prepared for fits though what was placed last stays in use", "[ring]") {
  if (!told_of_full_memory()) return;
  const std::size_t size = GENERATE(as<std::size_t>{}, ring_start, 64 * kib);
  const ring_memory memory(size);
  const std::size_t grain = size / 64;
  std::size_t refused = 0;
  std::size_t prepared = 0;
  for (std::size_t offset = 0; offset < size; offset += grain) {
    for (std::size_t held = grain; offset + held < size; held += grain) {
      ring_writer ring(memory.bytes());
      if (offset != 0) {
        if (!ring.prepare(offset, 0) || !ring.fits(offset, 0)) continue;
        ring.place(offset);
      }
      const std::uint64_t tail = ring.head();
      if (!ring.prepare(held, tail) || !ring.fits(held, tail) || ring.place(held) != tail) continue;
      ring.hold(held);
      for (std::size_t n = sizeof(reply_header); n <= largest; n += grain) {
        if (ring.prepare(n, tail)) {
          ++prepared;
          if (!ring.fits(n, tail)) FAIL("never fits: " << n << " bytes behind " << held << " at " << offset);
        } else {
          ++refused;
        }
      }
      // Once more has been placed, all may be read.
      if (!ring.prepare(sizeof(reply_header), tail)) continue;
      ring.place(sizeof(reply_header));
      if (const std::uint64_t head = ring.head(); ring.prepare(grain, head) && !ring.fits(grain, head))
        FAIL("never fits: " << grain << " bytes behind " << held << " at " << offset);
    }
  }
  CHECK(prepared > 0);
  CHECK(refused > 0);
}

TEST_CASE("a ring is read as it was written, with any memory and with more of it later", "[ring]") {
  if (!told_of_full_memory()) return;
  const std::size_t first = GENERATE(as<std::size_t>{}, ring_start, 64 * kib, 96 * kib, ring_bytes);
  ring_memory memory(first);
  ring_writer ring(memory.bytes());
  std::mt19937 random(1);
  std::uint64_t written = 0;
  std::uint64_t read = 0;
  std::uint64_t position = 0;
  std::uint64_t taken = 0;
  std::size_t refused = 0;
  // As lane_port::next_reply does.
  const auto read_one = [&] {
    reply_header header;
    for (;;) {
      const std::size_t offset = position % ring_bytes;
      if (ring_bytes - offset >= sizeof(header)) {
        std::memcpy(&header, memory.bytes() + offset, sizeof(header));
        if (header.number != reply_header::wrap) break;
      }
      REQUIRE(offset != 0);
      position += ring_bytes - offset;
    }
    REQUIRE(header.number == ++read);
    position += sizeof(header);
    for (std::size_t i = 0; i != header.size; ++i) {
      if (memory.bytes()[position % ring_bytes + i] != static_cast<std::byte>(read))
        FAIL("byte " << i << " of " << read);
    }
    position += header.size;
  };
  for (int step = 0; step != 20'000; ++step) {
    if (step == 10'000) memory.allow(round_up((first + ring_bytes) / 2, 32 * kib));
    const bool any_size = random() % 4 == 0;
    const std::size_t n = sizeof(reply_header) + random() % ((any_size ? ring_payload : 500) / 8) * 8;
    if (!ring.prepare(n, taken)) {
      ++refused;
      REQUIRE(2 * (n + sizeof(reply_header)) > memory.size());
      continue;
    }
    // What waits for room gets it when all has been read, at the latest.
    while (!ring.fits(n, taken)) {
      REQUIRE((read != written || taken != position));
      if (read != written) read_one();
      taken = position;
    }
    const std::uint64_t head = ring.head();
    const std::uint64_t at = ring.place(n);
    if (at - head >= sizeof(reply_header)) {
      const reply_header wrap{reply_header::wrap, 0, 0, 0, 0};
      std::memcpy(memory.bytes() + head % ring_bytes, &wrap, sizeof(wrap));
    }
    const reply_header header{++written, n - sizeof(header), 0, 1, 0};
    std::memcpy(memory.bytes() + at % ring_bytes, &header, sizeof(header));
    std::memset(memory.bytes() + at % ring_bytes + sizeof(header), static_cast<int>(written), n - sizeof(header));
    while (read != written && random() % 2 == 0) {
      read_one();
      if (random() % 2 == 0) taken = position;
    }
  }
  CHECK(written > 5000);
  if (first == ring_start) CHECK(refused > 0);
  if (first >= 96 * kib) CHECK(refused == 0);
}

TEST_CASE("a ring that is always read at once takes no more memory", "[ring]") {
  if (!told_of_full_memory()) return;
  const ring_memory memory(ring_bytes);
  ring_writer ring(memory.bytes());
  const std::size_t n = GENERATE(as<std::size_t>{}, 40, 1000, ring_start / 2 - sizeof(reply_header));
  for (int i = 0; i != 1000; ++i) {
    REQUIRE(ring.prepare(n, ring.head()));
    REQUIRE(ring.fits(n, ring.head()));
    REQUIRE(ring.place(n) % ring_bytes + n <= ring_start - sizeof(reply_header));
  }
  // One that is not grows until it is as large as it may be.
  std::size_t most = 0;
  std::uint64_t tail = ring.head();
  for (int i = 0; i != 100'000; ++i) {
    REQUIRE(ring.prepare(n, tail));
    if (!ring.fits(n, tail)) tail = ring.head();
    most = std::max(most, ring.place(n) % ring_bytes + n);
  }
  CHECK(most > ring_bytes - n);
}

TEST_CASE("a ring without a reader begins at its start again", "[ring]") {
  const ring_memory memory(ring_bytes);
  ring_writer ring(memory.bytes());
  CHECK(ring.restart() == 0);
  REQUIRE(ring.prepare(100, 0));
  CHECK(ring.place(100) == 0);
  CHECK(ring.restart() == ring_bytes);
  CHECK(ring.restart() == ring_bytes);
  CHECK(ring.place(100) == ring_bytes);
}
