// SPDX-License-Identifier: BSL-1.0
#include <procpool/codec.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <complex>
#include <cstdint>
#include <cstring>
#include <deque>
#include <forward_list>
#include <functional>
#include <limits>
#include <list>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <span>
#include <stack>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <valarray>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>
#include <cereal/types/polymorphic.hpp>

#include "support/codec_types.hpp"

namespace {

using namespace types;
using namespace procpool;
using namespace procpool::detail;

template <class T>
T round_trip(const T& value) {
  heap_writer bytes;
  encode(bytes, value);
  byte_reader reader(bytes.data(), bytes.size());
  T back = decode<T>(reader);
  CHECK(reader.remaining() == 0);
  return back;
}

/// Decodes every beginning of the bytes and many damaged copies of them: an error of the library's or a value.
template <class T>
void damage(const T& value) {
  heap_writer bytes;
  encode(bytes, value);
  const auto attempt = [](const heap_writer& damaged) {
    byte_reader reader(damaged.data(), damaged.size());
    try {
      static_cast<void>(decode<T>(reader));
      return true;
    } catch (const serialization_error&) {
      return false;
    }
  };
  for (std::size_t length = 0; length < bytes.size(); ++length) {
    heap_writer cut;
    cut.write(bytes.data(), length);
    CHECK_FALSE(attempt(cut));
  }
  std::mt19937 random(12345);
  for (int i = 0; i < 300 && bytes.size() != 0; ++i) {
    heap_writer flipped;
    flipped.write(bytes.data(), bytes.size());
    for (auto flips = random() % 3 + 1; flips != 0; --flips) {
      flipped.data()[random() % bytes.size()] ^= static_cast<std::byte>(random() % 255 + 1);
    }
    attempt(flipped);
  }
}

template <class T>
void survives(const T& value) {
  INFO(type_name<T>());
  STATIC_REQUIRE(transferable<T>);
  CHECK(round_trip(value) == value);
  damage(value);
}

std::string error_of(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const serialization_error& error) {
    return error.what();
  }
  return "";
}

int twice(int x) { return 2 * x; }

}  // namespace

TEST_CASE("a writer keeps a few bytes in itself, and moves them where they must be aligned", "[codec]") {
  const auto within = [](const heap_writer& writer) {
    const auto* const self = reinterpret_cast<const std::byte*>(&writer);
    return writer.data() >= self && writer.data() < self + sizeof(writer);
  };
  heap_writer bytes;
  bytes.put(std::uint64_t{1});
  bytes.put(std::uint64_t{2});
  bytes.put(std::uint64_t{3});
  CHECK(within(bytes));
  bytes.put('x');
  CHECK_FALSE(within(bytes));
  byte_reader reader(bytes.data(), bytes.size());
  for (const std::uint64_t each : {1U, 2U, 3U}) CHECK(reader.get<std::uint64_t>() == each);
  CHECK(reader.get<char>() == 'x');

  heap_writer aligned;
  aligned.put('a');
  aligned.align(payload_alignment);
  CHECK(reinterpret_cast<std::uintptr_t>(aligned.data()) % payload_alignment == 0);
  CHECK(aligned.size() == payload_alignment);
  CHECK(byte_reader(aligned.data(), 1).get<char>() == 'a');
}

TEST_CASE("scalars travel", "[codec]") {
  survives(0);
  survives(-1);
  survives('a');
  survives(true);
  survives(false);
  survives(1.5);
  survives(std::numeric_limits<std::uint64_t>::max());
  survives(static_cast<long double>(2));
  survives(color::green);
  survives(nullptr);
  survives(&twice);
  survives(&point::x);
  survives(&person::older);
  survives(static_cast<int (*)(int)>(nullptr));
}

TEST_CASE("trivially copyable types travel by their bytes", "[codec]") {
  survives(point{1, 2});
  survives(meters(2.5));
  survives(empty{});
  survives(std::complex<double>(1, 2));
  survives(std::chrono::milliseconds(3));
  survives(std::chrono::system_clock::now());
  survives(std::bitset<70>("101"));
  survives(std::array<int, 3>{1, 2, 3});
  survives(std::array<meters, 1>{meters(1)});
  survives(std::array<int, 0>{});
  survives(std::monostate{});
  survives(std::thread::id{});
  survives(std::error_code(2, std::generic_category()));
  CHECK(round_trip(std::mt19937(7))() == std::mt19937(7)());
  with_arrays arrays{"procpool", {{1, 2, 3}, {4, 5, 6}}, 5, 77};
  const with_arrays back = round_trip(arrays);
  CHECK(std::string(back.name) == "procpool");
  CHECK(back.numbers[1][2] == 6);
  CHECK(back.flags == 5u);
  CHECK(back.rest == 77u);
  number n{};
  n.i = 5;
  CHECK(round_trip(n).i == 5);
}

TEST_CASE("the standard library's types travel, empty, with one element and with many", "[codec]") {
  survives(std::string());
  survives(std::string("x"));
  survives(std::string(10000, 'y'));
  survives(std::string("a\0b", 3));
  survives(std::wstring(L"wide"));
  survives(std::u16string(u"16"));
  survives(std::vector<int>{});
  survives(std::vector<int>{1});
  survives(std::vector<int>(1000, 5));
  survives(std::vector<char>{'a', 'b'});
  survives(std::vector<bool>{true, false, true});
  survives(std::vector<point>{{1, 2}, {3, 4}});
  survives(std::vector<meters>{meters(1), meters(2)});
  survives(std::vector<empty>(3));
  survives(std::vector<std::string>{"a", "", "c"});
  survives(std::vector<std::vector<int>>{{}, {1}, {1, 2}});
  survives(std::vector<no_bytes>(2000));
  survives(std::deque<int>{1, 2});
  survives(std::list<std::string>{"a", "b"});
  survives(std::forward_list<std::string>{"a", "b", "c"});
  survives(std::array<std::string, 2>{"a", "b"});
  survives(std::array<no_defaults, 1>{no_defaults{meters(1), "m"}});
  survives(std::set<std::string>{"a", "b"});
  survives(std::multiset<int>{1, 1, 2});
  survives(std::map<std::string, meters>{{"a", meters(1)}});
  survives(std::multimap<int, std::string>{{1, "a"}, {1, "b"}});
  survives(std::unordered_set<int>{1, 2, 3});
  survives(std::unordered_multiset<int>{1, 1, 3});
  survives(std::unordered_map<std::string, std::vector<int>>{{"a", {1}}, {"b", {}}});
  survives(std::unordered_multimap<int, int>{{1, 2}, {1, 2}});
  survives(std::pair<int, std::string>(1, "a"));
  survives(std::pair<const int, double>(1, 2));
  survives(std::tuple<>());
  survives(std::tuple<int>(1));
  survives(std::tuple<std::tuple<int>>(std::tuple<int>(1)));
  survives(std::tuple<int, std::string, std::vector<bool>>(1, "a", {true}));
  survives(std::optional<int>());
  survives(std::optional<int>(3));
  survives(std::optional<std::optional<std::string>>(std::optional<std::string>("a")));
  survives(std::optional<meters>(meters(1)));
  survives(std::variant<int, std::string, int>(std::in_place_index<2>, 3));
  survives(std::variant<std::monostate, std::string>("a"));
  survives(std::stack<int>(std::deque<int>{1, 2}));
  survives(std::queue<std::string>(std::deque<std::string>{"a", "b"}));
  std::priority_queue<int> queue;
  for (int i : {1, 3, 2}) queue.push(i);
  CHECK(round_trip(queue).top() == 3);
  std::priority_queue<int, std::vector<int>, std::greater<>> lowest_first;
  for (int i : {3, 1, 2}) lowest_first.push(i);
  CHECK(round_trip(lowest_first).top() == 1);
  const auto array = round_trip(std::valarray<double>{1, 2, 3});
  CHECK((array.size() == 3 && array[2] == 3));
  damage(std::valarray<double>{1, 2, 3});
}

TEST_CASE("what is copied piece by piece arrives whole", "[codec]") {
  using three_bytes = std::array<char, 3>;  // of which no number fills a piece
  const auto size = GENERATE(std::size_t{0}, std::size_t{1}, 4 * copied_at_a_time - 1) + copied_at_a_time;
  std::vector<three_bytes> threes(size / sizeof(three_bytes));
  for (std::size_t i = 0; i != threes.size(); ++i) {
    threes[i] = {static_cast<char>(i), static_cast<char>(i >> 8), static_cast<char>(i >> 16)};
  }
  CHECK((round_trip(threes) == threes));
  std::vector<std::uint64_t> words(size / sizeof(std::uint64_t));
  std::iota(words.begin(), words.end(), 1);
  CHECK((round_trip(words) == words));
}

TEST_CASE("smart pointers travel with what they point to", "[codec]") {
  CHECK(round_trip(std::unique_ptr<int>()) == nullptr);
  CHECK(*round_trip(std::make_unique<int>(3)) == 3);
  CHECK(*round_trip(std::make_unique<meters>(3)) == meters(3));
  CHECK(*round_trip(std::make_unique<serialized>("a", std::vector<meters>{})) == serialized("a", {}));
  CHECK(**round_trip(std::make_unique<std::unique_ptr<std::string>>(std::make_unique<std::string>("a"))) == "a");
  CHECK(round_trip(std::make_unique<needs_two>(1, 2))->sum == 3);
  CHECK(round_trip(std::make_shared<needs_two>(1, 2))->sum == 3);

  const auto shared = std::make_shared<std::string>("a");
  const auto both = round_trip(std::vector<std::shared_ptr<std::string>>{shared, nullptr, shared});
  CHECK((*both[0] == "a" && both[0] == both[2] && both[1] == nullptr));
  const auto observed = round_trip(std::make_pair(shared, std::weak_ptr<std::string>(shared)));
  CHECK(observed.second.lock() == observed.first);

  auto circle = std::make_unique<square>();
  circle->side = 2;
  CHECK(round_trip(std::unique_ptr<shape>(std::move(circle)))->corners() == 6);
  const std::shared_ptr<shape> polymorphic = std::make_shared<square>();
  CHECK(round_trip(polymorphic)->corners() == 4);

  damage(std::make_unique<int>(3));
  damage(std::vector<std::shared_ptr<std::string>>{shared, nullptr, shared});
  damage(polymorphic);
  damage(std::make_unique<needs_two>(1, 2));
}

TEST_CASE("bytes that take a shared pointer for one of another type are refused", "[codec]") {
  heap_writer bytes;
  encode(bytes, std::make_pair(std::make_shared<int>(1), std::make_shared<std::string>("a")));
  heap_writer confused;
  confused.write(bytes.data(), 8);  // the first pointer: its number and the int
  confused.put(std::uint32_t{1});   // the second: the first again
  byte_reader reader(confused.data(), confused.size());
  using pair = std::pair<std::shared_ptr<int>, std::shared_ptr<std::string>>;
  CHECK_THROWS_AS(decode<pair>(reader), serialization_error);
}

TEST_CASE("aggregates travel field by field", "[codec]") {
  survives(person{"ann", point{1, 2}, {}});
  survives(person{"ann", {}, {person{"bob", {}, {}}, person{"eve", point{}, {person{}}}}});
  survives(named_arrays{{"a", "b"}, {'x', 'y', 'z', '\0'}, 3});
  survives(checked_state{5, true});
  survives(no_defaults{meters(2), "m", 2});
  survives(std::map<std::string, person>{{"ann", person{"ann", {}, {}}}});
  const linked two{std::make_unique<linked>(nullptr, 2), 1};
  CHECK(round_trip(two).next->value == 2);
}

TEST_CASE("types with cereal functions travel by these", "[codec]") {
  survives(serialized("text", {meters(1), meters(2)}));
  survives(serialized());
  survives(split::of(3));
  survives(no_bytes{});
  survives(std::vector<serialized>{serialized("a", {}), serialized("b", {meters(1)})});
  survives(std::map<std::string, serialized>{{"a", serialized("b", {})}});
  CHECK(round_trip(minimal{42, "not sent"}).value == 42);
  CHECK(round_trip(minimal{42, "not sent"}).private_note.empty());
  CHECK(round_trip(versioned{1, "two"}).text == "two");
  heap_writer bytes;
  encode(bytes, split::of(3));
  CHECK(byte_reader(bytes.data(), bytes.size()).get<int>() == 4);  // its save() came before its bytes

  all_sorts sorts;
  sorts.counter = 3;
  sorts.raw[2] = 7;
  sorts.points[1] = point{1, 2};
  sorts.bits = {true, false};
  sorts.corner = point{8, 9};
  sorts.blob[3] = 5;
  const all_sorts back = round_trip(sorts);
  CHECK(back.counter == 3);
  CHECK(back.raw[2] == 7);
  CHECK(back.points.at(1) == point{1, 2});
  CHECK(back.bits == std::vector<bool>{true, false});
  CHECK(back.corner == point{8, 9});
  CHECK(back.blob[3] == 5);
  damage(sorts);
}

TEST_CASE("what cannot be sent is not transferable", "[codec]") {
  struct holds_pointer {
    int n;
    int* p;
  };
  struct holds_view {
    double d;
    std::string_view v;
  };
  struct holds_array {
    const int* p[3];
  };
  struct deep {
    std::string name;
    std::vector<std::optional<holds_view>> views;
  };
  struct holds_reference {
    int& r;
  };
  struct holds_const_reference {
    const int& r;
    double d;
  };
  class keeps_pointer {
   public:
    explicit keeps_pointer(int* p) : p_(p) {}
    int* get() const { return p_; }

   private:
    int* p_;
  };
  STATIC_REQUIRE(!transferable<int*>);
  STATIC_REQUIRE(!transferable<void*>);
  STATIC_REQUIRE(!transferable<const char*>);
  STATIC_REQUIRE(!transferable<std::string_view>);
  STATIC_REQUIRE(!transferable<std::span<const int>>);
  STATIC_REQUIRE(!transferable<std::reference_wrapper<int>>);
  STATIC_REQUIRE(!transferable<std::initializer_list<int>>);
  STATIC_REQUIRE(!transferable<std::vector<int>::iterator>);
  STATIC_REQUIRE(!transferable<std::map<int, int>::const_iterator>);
  STATIC_REQUIRE(!transferable<std::coroutine_handle<>>);
  STATIC_REQUIRE(!transferable<std::ranges::ref_view<std::vector<int>>>);
  STATIC_REQUIRE(!transferable<std::vector<int*>>);
  STATIC_REQUIRE(!transferable<std::vector<std::string_view>>);
  STATIC_REQUIRE(!transferable<std::map<std::string_view, int>>);
  STATIC_REQUIRE(!transferable<std::pair<int, int*>>);
  STATIC_REQUIRE(!transferable<std::array<int*, 2>>);
  STATIC_REQUIRE(!transferable<std::optional<std::string_view>>);
  STATIC_REQUIRE(!transferable<std::variant<int, int*>>);
  STATIC_REQUIRE(!transferable<std::tuple<int, std::span<int>>>);
  STATIC_REQUIRE(!transferable<std::tuple<int&>>);
  STATIC_REQUIRE(!transferable<std::unique_ptr<int*>>);
  STATIC_REQUIRE(!transferable<std::unique_ptr<int[]>>);
  STATIC_REQUIRE(!transferable<std::function<void()>>);
  STATIC_REQUIRE(!transferable<std::mutex>);
  STATIC_REQUIRE(!transferable<std::thread>);
  STATIC_REQUIRE(!transferable<holds_pointer>);
  STATIC_REQUIRE(!transferable<holds_view>);
  STATIC_REQUIRE(!transferable<holds_array>);
  STATIC_REQUIRE(!transferable<deep>);
  STATIC_REQUIRE(!transferable<holds_reference>);
  STATIC_REQUIRE(!transferable<holds_const_reference>);
  STATIC_REQUIRE(!transferable<keeps_pointer>);
  STATIC_REQUIRE(!transferable<std::vector<keeps_pointer>>);
  STATIC_REQUIRE(transferable<number>);  // vouched for
  STATIC_REQUIRE(transferable<int (*)(int)>);
  STATIC_REQUIRE(transferable<std::vector<std::string>>);
  STATIC_REQUIRE(transferable<linked>);
  STATIC_REQUIRE(transferable<std::unique_ptr<shape>>);
}

TEST_CASE("what decodes in place runs no code of others", "[codec]") {
  STATIC_REQUIRE(decodes_in_place<int>);
  STATIC_REQUIRE(decodes_in_place<std::string>);
  STATIC_REQUIRE(decodes_in_place<std::vector<point>>);
  STATIC_REQUIRE(decodes_in_place<std::vector<std::string>>);
  STATIC_REQUIRE(decodes_in_place<std::optional<std::pair<int, std::string>>>);
  STATIC_REQUIRE(decodes_in_place<named_arrays>);
  STATIC_REQUIRE(decodes_in_place<shared_array<int>>);
  STATIC_REQUIRE(!decodes_in_place<serialized>);
  STATIC_REQUIRE(!decodes_in_place<std::vector<serialized>>);
  STATIC_REQUIRE(!decodes_in_place<person>);  // as deep as the bytes say
  STATIC_REQUIRE(!decodes_in_place<std::shared_ptr<int>>);
  STATIC_REQUIRE(!decodes_in_place<std::map<int, int>>);
}

TEST_CASE("a length that the bytes cannot hold is refused before anything is allocated", "[codec]") {
  const auto announce = [](std::uint64_t length) {
    auto bytes = std::make_unique<heap_writer>();
    bytes->put(length);
    bytes->put(std::array<char, 12>{});
    return bytes;
  };
  for (const std::uint64_t length :
       {std::uint64_t{13}, std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{0} / 4}) {
    const auto bytes = announce(length);
    const auto refused = [&]<class T>(std::type_identity<T>) {
      byte_reader reader(bytes->data(), bytes->size());
      CHECK_THROWS_AS(decode<T>(reader), serialization_error);
    };
    refused(std::type_identity<std::string>());
    refused(std::type_identity<std::vector<char>>());
    refused(std::type_identity<std::vector<double>>());
    refused(std::type_identity<std::vector<bool>>());
    refused(std::type_identity<std::vector<empty>>());
    refused(std::type_identity<std::vector<no_bytes>>());
    refused(std::type_identity<std::vector<std::string>>());
    refused(std::type_identity<std::vector<serialized>>());
    refused(std::type_identity<std::list<std::tuple<>>>());
    refused(std::type_identity<std::map<int, int>>());
    refused(std::type_identity<std::unordered_set<int>>());
    refused(std::type_identity<std::valarray<double>>());
    refused(std::type_identity<std::queue<int>>());
    refused(std::type_identity<std::wstring>());
  }
}

TEST_CASE("values nested too deep are refused, in both directions", "[codec]") {
  const auto chain = [](int length) {
    linked head{nullptr, 0};
    for (int i = 1; i < length; ++i) head = linked{std::make_unique<linked>(std::move(head)), i};
    return head;
  };
  CHECK(round_trip(chain(400)).next->value == 398);
  const linked long_chain = chain(3000);
  heap_writer bytes;
  CHECK_THROWS_AS(encode(bytes, long_chain), serialization_error);
  heap_writer forged;
  for (int i = 0; i < 3000; ++i) forged.put(true);
  byte_reader reader(forged.data(), forged.size());
  CHECK_THROWS_AS(decode<linked>(reader), serialization_error);
}

TEST_CASE("a bool, an optional and a variant are never made of bytes that are none", "[codec]") {
  heap_writer two;
  two.put(std::array<std::uint8_t, 16>{2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2});
  const auto refused = [&]<class T>(std::type_identity<T>) {
    INFO(type_name<T>());
    byte_reader reader(two.data(), two.size());
    CHECK_THROWS_AS(decode<T>(reader), serialization_error);
  };
  refused(std::type_identity<bool>());
  refused(std::type_identity<std::optional<int>>());
  refused(std::type_identity<checked_state>());
  refused(std::type_identity<std::variant<int, float>>());
  refused(std::type_identity<std::pair<bool, int>>());
  refused(std::type_identity<std::unique_ptr<int>>());
}

TEST_CASE("a variant that holds nothing cannot be encoded", "[codec]") {
  struct throws_when_converted {
    operator person() const { throw 1; }
  };
  std::variant<std::string, person> empty_one("a");
  CHECK_THROWS_AS(empty_one.emplace<1>(throws_when_converted()), int);
  heap_writer bytes;
  CHECK_THROWS_AS(encode(bytes, empty_one), serialization_error);
}

TEST_CASE("what the user's functions throw becomes a serialization_error that names the type", "[codec]") {
  heap_writer bytes;
  const std::string saving = error_of([&] { encode(bytes, throwing{true}); });
  CHECK_THAT(saving, Catch::Contains("types::throwing") && Catch::Contains("cannot be saved today"));
  bytes.clear();
  encode(bytes, throwing{});
  byte_reader reader(bytes.data(), bytes.size());
  const std::string loading = error_of([&] { decode<throwing>(reader); });
  CHECK_THAT(loading, Catch::Contains("types::throwing") && Catch::Contains("cannot be loaded today"));
  try {
    byte_reader nothing(nullptr, 0);
    decode<std::vector<point>>(nothing);
    FAIL("an error is missing");
  } catch (const serialization_error& error) {
    CHECK(error.type_name() == type_name<std::vector<point>>());
    CHECK_THAT(error.what(), Catch::StartsWith("procpool: decoding"));
  }
}

TEST_CASE("decoding leaves the reader behind the value", "[codec]") {
  heap_writer bytes;
  encode(bytes, std::string("a"));
  encode(bytes, std::vector<double>{1, 2});
  encode(bytes, 7);
  byte_reader reader(bytes.data(), bytes.size());
  CHECK(decode<std::string>(reader) == "a");
  CHECK(decode<std::vector<double>>(reader) == std::vector<double>{1, 2});
  CHECK(decode<int>(reader) == 7);
  CHECK(reader.remaining() == 0);
}

TEST_CASE("a function that was not there when the process was forked is refused", "[codec]") {
  CHECK(code_map::contains(nullptr));  // nothing was installed here
  const auto later = std::make_unique<int>(0);
  const auto as_function = reinterpret_cast<std::uintptr_t>(later.get());
  const pid_t child = ::fork();
  if (child == 0) {
    code_map::install(code_map::of_now());
    bool right = code_map::contains(reinterpret_cast<const void*>(&twice)) && !code_map::contains(later.get()) &&
                 code_map::contains(reinterpret_cast<const void*>(&::strlen)) && !code_map::contains(nullptr);
    heap_writer bytes;
    bytes.put(&twice);
    bytes.put(static_cast<int (*)(int)>(nullptr));
    bytes.put(as_function);
    byte_reader reader(bytes.data(), bytes.size());
    right = right && decode<int (*)(int)>(reader) == &twice && decode<int (*)(int)>(reader) == nullptr;
    try {
      decode<int (*)(int)>(reader);
      right = false;
    } catch (const serialization_error& error) {
      right = right && std::string_view(error.what()).find("loaded after the pool was made") != std::string_view::npos;
    }
    ::_exit(right ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  CHECK(status == 0);
}
