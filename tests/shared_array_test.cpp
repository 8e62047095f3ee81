// SPDX-License-Identifier: BSL-1.0
#include <procpool/shared_array.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
#include <numeric>
#include <ranges>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

namespace {

using procpool::make_shared_array;
using procpool::serialization_error;
using procpool::shared_array;
using namespace procpool::detail;

struct pixel {
  std::uint8_t r, g, b;
};

/// The arrays that came beside a message: descriptors are passed on as a socket would.
class passed_descriptors final : public attachment_source {
 public:
  explicit passed_descriptors(const byte_writer& from) {
    for (const auto& block : from.attachments()) fds_[block->identity()] = unique_fd(::dup(block->fd()));
  }
  std::shared_ptr<array_block> take(std::uint64_t identity) override {
    const auto found = fds_.find(identity);
    if (found == fds_.end()) return nullptr;
    return array_block::adopt(unique_fd(::dup(found->second.get())));
  }

 private:
  std::map<std::uint64_t, unique_fd> fds_;
};

template <class T>
T round_trip(const T& value) {
  heap_writer bytes;
  encode(bytes, value);
  passed_descriptors descriptors(bytes);
  byte_reader reader(bytes.data(), bytes.size(), &descriptors);
  T back = decode<T>(reader);
  CHECK(reader.remaining() == 0);
  return back;
}

/// Runs `fn` in a forked process and returns whether it returned true.
template <class Fn>
bool in_child(Fn fn) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(fn() ? 0 : 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

std::ptrdiff_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return std::distance(begin(all), end(all));
}

}  // namespace

TEST_CASE("a shared array is a contiguous sized range behind a shallow-const handle", "[shared_array]") {
  STATIC_REQUIRE(std::ranges::contiguous_range<shared_array<int>>);
  STATIC_REQUIRE(std::ranges::sized_range<const shared_array<int>>);
  STATIC_REQUIRE(std::is_nothrow_copy_constructible_v<shared_array<int>>);
  STATIC_REQUIRE(std::is_nothrow_move_assignable_v<shared_array<int>>);
  STATIC_REQUIRE(std::is_same_v<decltype(std::declval<const shared_array<int>&>()[0]), int&>);

  const auto array = make_shared_array<int>(100);
  CHECK(array.size() == 100);
  CHECK_FALSE(array.empty());
  CHECK(std::ranges::all_of(array, [](int x) { return x == 0; }));
  array[3] = 7;
  *array.begin() = 1;
  const shared_array<int> copy = array;
  CHECK(copy.data() == array.data());
  CHECK(std::accumulate(copy.begin(), copy.end(), 0) == 8);
  CHECK(array.end() - array.begin() == 100);
}

TEST_CASE("a default-constructed shared array is empty, and so is one of no elements", "[shared_array]") {
  const shared_array<double> none;
  CHECK(none.size() == 0);
  CHECK(none.empty());
  CHECK(none.begin() == none.end());
  const auto zero = make_shared_array<double>(0);
  CHECK(zero.empty());
  heap_writer bytes;
  encode(bytes, zero);
  CHECK(bytes.attachments().empty());
  byte_reader reader(bytes.data(), bytes.size());
  CHECK(decode<shared_array<double>>(reader).empty());
  CHECK(round_trip(none).empty());
}

TEST_CASE("a moved-from shared array is empty", "[shared_array]") {
  auto array = make_shared_array<int>(3);
  const shared_array<int> taken = std::move(array);
  CHECK(array.size() == 0);  // NOLINT: the state is specified
  CHECK(array.begin() == array.end());
  CHECK(taken.size() == 3);
  auto other = make_shared_array<int>(2);
  other = taken;
  CHECK(other.data() == taken.data());
}

TEST_CASE("a shared array arrives as the same memory, whatever its size", "[shared_array]") {
  const auto small = make_shared_array<pixel>(1);
  small[0].g = 9;
  CHECK(round_trip(small)[0].g == 9);
  const auto large = make_shared_array<std::uint64_t>(std::size_t{1} << 36);  // half a terabyte, none of it written
  large[large.size() - 1] = 5;
  heap_writer bytes;
  encode(bytes, large);
  CHECK(bytes.size() == 16);
  const auto back = round_trip(large);
  CHECK(back.data() == large.data());  // mapped once
  CHECK(back[back.size() - 1] == 5);
}

TEST_CASE("shared arrays travel inside other types", "[shared_array]") {
  struct labelled {
    std::string name;
    shared_array<int> values;
  };
  const auto array = make_shared_array<int>(2);
  array[1] = 4;
  CHECK(round_trip(labelled{"a", array}).values[1] == 4);
  const auto several = round_trip(std::vector<shared_array<int>>{array, {}, array});
  CHECK(several[0].data() == several[2].data());
  CHECK(several[1].empty());
}

TEST_CASE("a process that was given a shared array writes what others see", "[shared_array]") {
  const auto array = make_shared_array<int>(10);
  heap_writer bytes;
  encode(bytes, array);
  CHECK(in_child([&] {
    passed_descriptors descriptors(bytes);
    byte_reader reader(bytes.data(), bytes.size(), &descriptors);
    const auto mine = decode<shared_array<int>>(reader);
    mine[2] = 42;
    array[3] = 43;  // the inherited mapping works as well
    return mine.data() == array.data();
  }));
  CHECK(array[2] == 42);
  CHECK(array[3] == 43);
}

TEST_CASE("the memory and the descriptors go with the last handle", "[shared_array]") {
  const auto before = open_descriptors();
  {
    auto array = make_shared_array<int>(1000);
    const auto copy = round_trip(array);
    CHECK(open_descriptors() == before + 1);
    array = {};
    CHECK(open_descriptors() == before + 1);
    CHECK(copy.size() == 1000);
  }
  CHECK(open_descriptors() == before);
  std::uint64_t identity = 0;
  {
    const auto block = array_block::create(100);
    identity = block->identity();
    CHECK(array_block::adopt(unique_fd(::dup(block->fd()))) == block);
  }
  const auto next = array_block::create(100);
  CHECK(next->data()[0] == std::byte{0});
  static_cast<void>(identity);
}

TEST_CASE("an array that did not come, or is too short, is refused", "[shared_array]") {
  const auto array = make_shared_array<int>(10);
  heap_writer bytes;
  encode(bytes, array);
  byte_reader without(bytes.data(), bytes.size());
  CHECK_THROWS_AS(decode<shared_array<int>>(without), serialization_error);

  passed_descriptors descriptors(bytes);
  heap_writer forged;
  forged.put(byte_reader(bytes.data(), bytes.size()).get<std::uint64_t>());
  for (const std::uint64_t size : {std::uint64_t{11}, ~std::uint64_t{0}, std::uint64_t{1} << 62}) {
    forged.truncate(8, 0);
    forged.put(size);
    byte_reader reader(forged.data(), forged.size(), &descriptors);
    CHECK_THROWS_AS(decode<shared_array<int>>(reader), serialization_error);
  }
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    byte_reader reader(bytes.data(), length, &descriptors);
    CHECK_THROWS_AS(decode<shared_array<int>>(reader), serialization_error);
  }
  heap_writer other;
  other.put(std::uint64_t{1});
  other.put(std::uint64_t{1});
  byte_reader reader(other.data(), other.size(), &descriptors);
  CHECK_THROWS_AS(decode<shared_array<int>>(reader), serialization_error);
}

TEST_CASE("only a sealed memfd is adopted", "[shared_array]") {
  CHECK_THROWS_AS(array_block::adopt(unique_fd(::open("/dev/zero", O_RDWR | O_CLOEXEC))), serialization_error);
  CHECK_THROWS_AS(array_block::adopt(unique_fd()), serialization_error);
  const int unsealed = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(::ftruncate(unsealed, 4096) == 0);
  CHECK_THROWS_AS(array_block::adopt(unique_fd(unsealed)), serialization_error);
}

TEST_CASE("an array is sealed and closed on exec", "[shared_array]") {
  const auto block = array_block::create(4096);
  CHECK(::ftruncate(block->fd(), 1) == -1);
  CHECK(::ftruncate(block->fd(), 8192) == -1);
  CHECK((::fcntl(block->fd(), F_GETFD) & FD_CLOEXEC) != 0);
}

TEST_CASE("sizes that cannot be are refused with typed errors", "[shared_array]") {
  CHECK_THROWS_AS(make_shared_array<int>(~std::size_t{0}), std::bad_array_new_length);
  CHECK_THROWS_AS(make_shared_array<int>(~std::size_t{0} / 4), std::bad_array_new_length);
  try {
    static_cast<void>(make_shared_array<char>(static_cast<std::size_t>(PTRDIFF_MAX)));
    FAIL("an error is missing");
  } catch (const std::system_error& error) {
    CHECK(std::string(error.what()).find("mmap") != std::string::npos);
  }
}
