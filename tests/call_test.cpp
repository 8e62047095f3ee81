// SPDX-License-Identifier: BSL-1.0
#include <procpool/codec.hpp>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>

namespace {

using namespace procpool;
using namespace procpool::detail;

/// One encoded call of F with Args, to be run as a worker would.
template <class F, class... Args>
class prepared {
 public:
  using call_type = call<F, std::decay_t<Args>...>;
  using result_type = typename call_type::result_type;

  template <class... Values>
  explicit prepared(const F& callable, Values&&... values) {
    call_type::encode_callable(callable_, callable);
    call_type::encode_arguments(arguments_, std::forward<Values>(values)...);
  }

  reply_kind run() {
    result_.truncate(0, 0);
    byte_reader arguments(arguments_.data(), arguments_.size());
    call_frame frame{byte_reader(callable_.data(), callable_.size()), arguments, result_, kept_};
    constexpr task_code code = &call_type::code;
    const reply_kind kind = code(frame);
    CHECK(arguments.remaining() == 0);
    return kind;
  }

  result_type get() {
    const reply_kind kind = run();
    byte_reader reader(result_.data(), result_.size());
    if (kind == reply_kind::exception) std::rethrow_exception(decode_exception(reader));
    if (kind == reply_kind::unserializable) throw decode_failure(reader, "test");
    if constexpr (!std::is_void_v<result_type>) return decode<result_type>(reader);
  }

  heap_writer callable_;
  heap_writer arguments_;
  heap_writer result_;
  std::shared_ptr<void> kept_;
};

template <class F, class... Args>
auto run(F callable, Args&&... args) {
  return prepared<F, Args...>(callable, std::forward<Args>(args)...).get();
}

int square(int x) { return x * x; }
int noexcept_square(int x) noexcept { return x * x; }
void nothing() {}
std::size_t length(std::string_view text) { return text.size(); }
std::size_t c_length(const char* text) { return std::strlen(text); }
std::string shout(const std::string& text) { return text + "!"; }
int add_in_place(int& to, std::unique_ptr<int> n) { return to += *n; }
double sum(std::span<const double> values) {
  double total = 0;
  for (const double value : values) total += value;
  return total;
}
int apply_function(int (*fn)(int), int x) { return fn(x); }
double half(double x) { return x / 2; }

struct base {
  int id;
};
struct extended : base {
  int more;
};
int id_of(const base& b) { return b.id; }

struct person {
  std::string name;
  int age;
  int in_years(int years) const { return age + years; }
  const std::string& get_name() const { return name; }
};

struct prefixed {  // an aggregate function object
  std::string prefix;
  shared_array<int> values;
  std::string operator()(int i) const { return prefix + std::to_string(i); }
};

struct by_cereal {
  std::string text;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(text);
    ++decoded;
  }
  std::size_t operator()() const { return text.size(); }
  static inline int decoded = 0;
};

struct not_to_be_copied {
  std::string text;
  not_to_be_copied() = default;
  not_to_be_copied(const not_to_be_copied& other) : text(other.text) { throw std::runtime_error("copied"); }
  not_to_be_copied(not_to_be_copied&&) = default;
  template <class Archive>
  void serialize(Archive& archive) {
    archive(text);
  }
};
not_to_be_copied& the_one() {
  static not_to_be_copied one;
  one.text = "the one";
  return one;
}

struct counting {  // only invocable as non-const
  std::vector<int> seen{};
  std::size_t operator()(int x) {
    seen.push_back(x);
    return seen.size();
  }
};

struct no_default {
  explicit no_default(int) {}
  int operator()() const { return 5; }
};

}  // namespace

TEST_CASE("what is returned by reference is encoded from where it lies", "[call]") {
  CHECK(run(&the_one).text == "the one");
  CHECK(run([]() -> const not_to_be_copied& { return the_one(); }).text == "the one");
  CHECK(run(&person::get_name, person{"Ada", 36}) == "Ada");
  CHECK_THROWS_AS(run(
                      [](bool thrown) -> not_to_be_copied& {
                        if (thrown) throw std::out_of_range("none");
                        return the_one();
                      },
                      true),
                  std::out_of_range);
}

TEST_CASE("functions are called with their arguments", "[call]") {
  CHECK(run(&square, 3) == 9);
  CHECK(run(&noexcept_square, 3) == 9);
  run(&nothing);
  CHECK(run(&shout, std::string("a")) == "a!");
  CHECK(run(&apply_function, &square, 4) == 16);
}

TEST_CASE("arguments are converted to a function's parameter types before they are sent", "[call]") {
  CHECK(run(&square, 3.7) == 9);
  CHECK(run(&half, 3) == 1.5);
  CHECK(run(&shout, "text") == "text!");
  CHECK(run(&length, "text") == 4);
  CHECK(run(&length, std::string("text")) == 4);
  CHECK(run(&sum, std::vector<double>{1, 2, 3}) == 6);
  CHECK(run(&sum, std::array<double, 2>{1, 2}) == 3);
  CHECK(run(&apply_function, [](int x) { return x + 1; }, 4) == 5);
  CHECK(run(&id_of, extended{{7}, 8}) == 7);
}

TEST_CASE("closures and function objects are called", "[call]") {
  int n = 5;
  double d = 0.5;
  CHECK(run([](int x) { return x + 1; }, 1) == 2);
  CHECK(run([n, d](int x) { return x * n + d; }, 2) == 10.5);
  CHECK(run([c = 'a', n] { return c + n; }) == 'a' + 5);
  CHECK(run([](auto x) { return x; }, std::string("generic")) == "generic");
  CHECK(run(std::plus<>(), 1, 2) == 3);
  CHECK(run(no_default(1)) == 5);
  CHECK(run(prefixed{"n", {}}, 3) == "n3");
  CHECK(run(by_cereal{"text"}) == 4);
  CHECK(run([n](int& x) { return x += n; }, 1) == 6);
}

TEST_CASE("an aggregate function object may hold closures beside what they cannot capture", "[call]") {
  int n = 3;
  const auto times = [n](int x) { return n * x; };
  struct both {
    decltype(times) fn;
    std::string text;
    int operator()(int x) const { return fn(x) + static_cast<int>(text.size()); }
  };
  CHECK(run(both{times, "ab"}, 2) == 8);
}

TEST_CASE("member pointers are called", "[call]") {
  CHECK(run(&person::name, person{"ann", 3}) == "ann");
  CHECK(run(&person::in_years, person{"ann", 3}, 4) == 7);
  CHECK(run(&person::get_name, person{"ann", 3}) == "ann");
  STATIC_REQUIRE(std::is_same_v<call<decltype(&person::get_name), person>::result_type, std::string>);
  CHECK(run(&person::age, std::make_unique<person>(person{"ann", 3})) == 3);
}

TEST_CASE("views are read where they lie", "[call]") {
  CHECK(run(&c_length, "text") == 4);
  char buffer[] = "abc";
  CHECK(run(&c_length, buffer) == 3);
  CHECK(run([](const char* text) { return std::string(text); }, "") == "");
  CHECK(run([](std::wstring_view text) { return text.size(); }, std::wstring_view(L"abc")) == 3);
  CHECK(run([](std::string_view text) { return std::string(text); }, std::string_view()) == "");
  CHECK(run([](std::string_view text) { return text.size(); }, std::string_view("a\0b", 3)) == 3);
  CHECK(run(&sum, std::span<const double>()) == 0);
  const std::array<std::uint64_t, 2> two{1, 2};
  // Behind one byte: the elements are aligned all the same.
  const auto aligned = [](char, std::span<const std::uint64_t> s) {
    return s[1] + reinterpret_cast<std::uintptr_t>(s.data()) % alignof(std::uint64_t);
  };
  CHECK(run(aligned, 'a', std::span<const std::uint64_t>(two)) == 2);
  CHECK(run([](std::span<const int, 2> s) { return s[1]; }, std::span<const int, 2>(std::array{1, 2})) == 2);

  prepared<decltype(&length), std::string_view> call(&length, std::string_view("text"));
  const auto inside = [&](const char* data) {
    return data >= reinterpret_cast<const char*>(call.arguments_.data()) &&
           data < reinterpret_cast<const char*>(call.arguments_.data()) + call.arguments_.size();
  };
  byte_reader reader(call.arguments_.data(), call.arguments_.size());
  CHECK(inside(get_argument<std::string_view>(reader).data()));
}

TEST_CASE("a null const char* cannot be sent", "[call]") {
  const char* null = nullptr;
  CHECK_THROWS_AS(run(&c_length, null), serialization_error);
}

TEST_CASE("what can only be moved is passed as an rvalue, what wants an lvalue gets one", "[call]") {
  const auto take = [](std::unique_ptr<int> p) { return p; };
  CHECK(*run(take, std::make_unique<int>(3)) == 3);
  CHECK(run(&add_in_place, 1, std::make_unique<int>(2)) == 3);
  CHECK(run([](std::vector<int>&& v) { return v.size(); }, std::vector<int>{1}) == 1);
  std::vector<bool> bits{true};
  CHECK(run([](bool bit) { return bit; }, bits[0]));
}

TEST_CASE("whether a call can be made is a constraint", "[call]") {
  STATIC_REQUIRE(callable_with<int (*)(int), int>);
  STATIC_REQUIRE(callable_with<int (*)(int), double>);
  STATIC_REQUIRE(!callable_with<int (*)(int), std::string>);
  STATIC_REQUIRE(!callable_with<int (*)(int)>);
  STATIC_REQUIRE(!callable_with<int (*)(int), int, int>);
  STATIC_REQUIRE(!callable_with<int, int>);
  STATIC_REQUIRE(callable_with<int (*)(int&), int>);
  STATIC_REQUIRE(callable_with<decltype(&person::name), person>);
  STATIC_REQUIRE(!callable_with<void (*)(char*), char*>);
  STATIC_REQUIRE(callable_with_tuple<int (*)(int, int), std::pair<int, char>>);
  STATIC_REQUIRE(callable_with_tuple<int (*)(int, int), std::array<int, 2>>);
  STATIC_REQUIRE(callable_with_tuple<void (*)(), std::tuple<>>);
  STATIC_REQUIRE(!callable_with_tuple<int (*)(int), std::pair<int, int>>);
  STATIC_REQUIRE(!callable_with_tuple<int (*)(int), int>);
}

TEST_CASE("a tuple's elements are the arguments", "[call]") {
  using tuple = std::tuple<std::string, std::unique_ptr<int>, const char*>;
  const auto fn = [](const std::string& s, std::unique_ptr<int> n, const char* t) {
    return s + std::to_string(*n) + t;
  };
  using call_type = call_with_tuple<std::decay_t<decltype(fn)>, tuple>;
  STATIC_REQUIRE(std::is_same_v<call_type::result_type, std::string>);
  heap_writer callable;
  heap_writer arguments;
  heap_writer result;
  call_type::encode_callable(callable, fn);
  encode_tuple_arguments<std::decay_t<decltype(fn)>>(arguments, tuple("a", std::make_unique<int>(1), "b"));
  byte_reader reader(arguments.data(), arguments.size());
  std::shared_ptr<void> kept;
  call_frame frame{byte_reader(callable.data(), callable.size()), reader, result, kept};
  REQUIRE(call_type::code(frame) == reply_kind::value);
  byte_reader answer(result.data(), result.size());
  CHECK(decode<std::string>(answer) == "a1b");
}

TEST_CASE("null function and member pointers are refused", "[call]") {
  int (*function)(int) = nullptr;
  CHECK_THROWS_AS(run(function, 1), std::invalid_argument);
  int person::* member = nullptr;
  CHECK_THROWS_AS(run(member, person{}), std::invalid_argument);
}

TEST_CASE("a closure that holds an address in the stack is refused", "[call]") {
  int local = 3;
  CHECK_THROWS_AS(run([&local] { return local; }), std::invalid_argument);
  CHECK_THROWS_AS(run([p = &local] { return *p; }), std::invalid_argument);
  struct object {
    int n = 1;
    int call() {
      return run([this] { return n; });
    }
  };
  object on_stack;
  CHECK_THROWS_AS(on_stack.call(), std::invalid_argument);
  bool thrown = false;
  std::thread([&] {
    int of_thread = 1;
    try {
      run([&of_thread] { return of_thread; });
    } catch (const std::invalid_argument&) {
      thrown = true;
    }
  }).join();
  CHECK(thrown);
}

TEST_CASE("other addresses in closures mean what they meant", "[call]") {
  static int global = 3;
  CHECK(run([p = &global] { return *p; }) == 3);
  const auto heap = std::make_unique<int>(4);
  CHECK(run([p = heap.get()] { return *p; }) == 4);
}

TEST_CASE("what a task throws is a reply", "[call]") {
  const auto fails = [](int x) -> int { throw std::out_of_range("no " + std::to_string(x)); };
  prepared<std::decay_t<decltype(fails)>, int> call(fails, 3);
  CHECK(call.run() == reply_kind::exception);
  CHECK_THROWS_WITH(call.get(), "no 3");
  CHECK_THROWS_AS(run([] { throw 3; }), remote_error);
  // Also what procpool throws itself, from a pool inside the task.
  CHECK_THROWS_AS(run([] { throw error_access::make<serialization_error>("text", "T"); }), remote_error);
}

TEST_CASE("a result or an argument that cannot travel is reported", "[call]") {
  const auto too_deep = [] {
    struct linked {
      std::unique_ptr<linked> next;
    };
    linked head;
    for (int i = 0; i < 2000; ++i) head = linked{std::make_unique<linked>(std::move(head))};
    return head;
  };
  prepared<std::decay_t<decltype(too_deep)>> call(too_deep);
  CHECK(call.run() == reply_kind::unserializable);
  CHECK_THROWS_AS(call.get(), serialization_error);

  prepared<decltype(&shout), std::string> cut(&shout, std::string("text"));
  cut.arguments_.truncate(cut.arguments_.size() - 1, 0);
  byte_reader arguments(cut.arguments_.data(), cut.arguments_.size());
  call_frame frame{byte_reader(cut.callable_.data(), cut.callable_.size()), arguments, cut.result_, cut.kept_};
  CHECK(decltype(cut)::call_type::code(frame) == reply_kind::unserializable);
}

TEST_CASE("no element of a chunk sees what another left in the callable", "[call]") {
  prepared<counting, int> stateful(counting{}, 1);
  CHECK(stateful.get() == 1);
  CHECK(stateful.get() == 1);
  CHECK(stateful.kept_ == nullptr);
  auto mutable_closure = [n = 0]() mutable { return ++n; };
  prepared<decltype(mutable_closure)> closure(mutable_closure);
  CHECK(closure.get() == 1);
  CHECK(closure.get() == 1);

  prepared<by_cereal> kept(by_cereal{"text"});
  by_cereal::decoded = 0;
  CHECK(kept.get() == 4);
  CHECK(kept.get() == 4);
  CHECK(by_cereal::decoded == 1);  // decoded once for the chunk
}

TEST_CASE("malformed arguments are reported, whatever they are", "[call]") {
  const auto fn = [](std::string_view a, const char* b, std::span<const int> c, std::vector<std::string> d) {
    return a.size() + std::strlen(b) + c.size() + d.size();
  };
  const std::vector<int> numbers{1, 2, 3};
  prepared<std::decay_t<decltype(fn)>, std::string_view, const char*, std::span<const int>, std::vector<std::string>>
      call(fn, std::string_view("abc"), "def", std::span<const int>(numbers), std::vector<std::string>{"x", "y"});
  const std::size_t size = call.arguments_.size();
  std::mt19937 random(99);
  const auto attempt = [&](const heap_writer& damaged, std::size_t length) {
    call.result_.truncate(0, 0);
    byte_reader arguments(damaged.data(), length);
    call_frame frame{byte_reader(call.callable_.data(), call.callable_.size()), arguments, call.result_, call.kept_};
    return decltype(call)::call_type::code(frame);
  };
  for (std::size_t length = 0; length < size; ++length) {
    CHECK(attempt(call.arguments_, length) == reply_kind::unserializable);
  }
  for (int i = 0; i < 3000; ++i) {
    heap_writer damaged;
    damaged.write(call.arguments_.data(), size);
    damaged.data()[random() % size] ^= static_cast<std::byte>(random() % 255 + 1);
    const reply_kind kind = attempt(damaged, size);
    CHECK((kind == reply_kind::value || kind == reply_kind::unserializable));
  }
}
