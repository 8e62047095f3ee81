// SPDX-License-Identifier: BSL-1.0
#include <procpool/codec.hpp>

#include <any>
#include <exception>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <ios>
#include <memory>
#include <new>
#include <optional>
#include <random>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <typeinfo>
#include <variant>
#include <vector>

#include <catch2/catch.hpp>

namespace errors {

struct plain {  // an aggregate, no std::exception
  int code;
  std::string text;
};

class derived : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class with_code : public std::exception {
 public:
  explicit with_code(int code = 0) : code_(code), text_("code " + std::to_string(code)) {}
  const char* what() const noexcept override { return text_.c_str(); }
  int code() const noexcept { return code_; }
  template <class Archive>
  void serialize(Archive& archive) {
    archive(code_, text_);
  }

 private:
  int code_;
  std::string text_;
};

struct never_saved : std::exception {
  const char* what() const noexcept override { return "a text of its own"; }
  template <class Archive>
  void save(Archive&) const {
    throw std::logic_error("no way to save it");
  }
  template <class Archive>
  void load(Archive&) {}
};

struct never_loaded : std::exception {
  int n = 0;
  const char* what() const noexcept override { return "a text of its own"; }
  template <class Archive>
  void save(Archive& archive) const {
    archive(n);
  }
  template <class Archive>
  void load(Archive&) {
    throw std::logic_error("no way to load it");
  }
};

struct category : std::error_category {
  const char* name() const noexcept override { return "mine"; }
  std::string message(int) const override { return "my message"; }
};

}  // namespace errors

namespace {

using namespace procpool;
using namespace procpool::detail;

std::exception_ptr thrown_by(const std::function<void()>& fn) {
  try {
    fn();
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

std::exception_ptr round_trip(const std::exception_ptr& thrown) {
  heap_writer bytes;
  encode_exception(bytes, thrown);
  byte_reader reader(bytes.data(), bytes.size());
  auto back = decode_exception(reader);
  CHECK(reader.remaining() == 0);
  return back;
}

/// Rethrows what `fn` throws after its journey.
void travel(const std::function<void()>& fn) { std::rethrow_exception(round_trip(thrown_by(fn))); }

struct seen {
  std::string type;
  std::string what;
};
seen look_at(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    return {typeid(e).name(), e.what()};
  } catch (...) {
    return {"", ""};
  }
}

void thrown_the_same(const std::function<void()>& fn) {
  const auto thrown = thrown_by(fn);
  const seen before = look_at(thrown);
  const seen after = look_at(round_trip(thrown));
  CHECK(before.type == after.type);
  CHECK(before.what == after.what);
}

template <class E>
void arrives_the_same(const E& error) {
  INFO(type_name<E>());
  thrown_the_same([&] { throw error; });
  thrown_the_same([&] {
    try {
      throw 1;
    } catch (...) {
      std::throw_with_nested(E(error));
    }
  });
  const E& constant = error;
  CHECK_THROWS_AS(travel([&] { std::throw_with_nested(constant); }), E);
}

template <class E>
void text_types() {
  arrives_the_same(E("a text"));
  arrives_the_same(E(""));
  arrives_the_same(E(std::string(10000, 'x')));
}

}  // namespace

TEST_CASE("the standard library's exceptions arrive as the same type with the same text", "[exception_codec]") {
  arrives_the_same(std::exception());
  text_types<std::logic_error>();
  text_types<std::invalid_argument>();
  text_types<std::domain_error>();
  text_types<std::length_error>();
  text_types<std::out_of_range>();
  text_types<std::runtime_error>();
  text_types<std::range_error>();
  text_types<std::overflow_error>();
  text_types<std::underflow_error>();
  arrives_the_same(std::bad_alloc());
  arrives_the_same(std::bad_array_new_length());
  arrives_the_same(std::bad_cast());
  arrives_the_same(std::bad_typeid());
  arrives_the_same(std::bad_exception());
  arrives_the_same(std::bad_function_call());
  arrives_the_same(std::bad_weak_ptr());
  arrives_the_same(std::bad_optional_access());
  arrives_the_same(std::bad_variant_access());
  arrives_the_same(std::bad_any_cast());
  arrives_the_same(std::future_error(std::future_errc::broken_promise));
  arrives_the_same(std::future_error(std::future_errc::no_state));
  arrives_the_same(std::regex_error(std::regex_constants::error_brack));
  arrives_the_same(std::system_error(ENOENT, std::generic_category()));
  arrives_the_same(std::system_error(ENOENT, std::system_category(), "opening"));
  arrives_the_same(std::system_error(ENOENT, std::system_category(), ""));
  arrives_the_same(std::system_error(std::make_error_code(std::io_errc::stream), "stream"));
  arrives_the_same(std::system_error(std::make_error_code(std::future_errc::no_state)));
  arrives_the_same(std::ios_base::failure("reading"));
  arrives_the_same(std::ios_base::failure("", std::make_error_code(std::errc::io_error)));
  using std::filesystem::filesystem_error;
  const auto code = std::make_error_code(std::errc::no_such_file_or_directory);
  arrives_the_same(filesystem_error("open", code));
  arrives_the_same(filesystem_error("open", "/a b", code));
  arrives_the_same(filesystem_error("copy", "/a", "/b", code));
  arrives_the_same(filesystem_error("copy", "", code));
  arrives_the_same(filesystem_error("copy", "", "", code));
  arrives_the_same(filesystem_error("copy", "/a", "", code));
  arrives_the_same(filesystem_error("", "", "/b", code));
  arrives_the_same(filesystem_error("no code", std::error_code()));
}

TEST_CASE("what the library itself throws arrives as it was thrown", "[exception_codec]") {
  thrown_the_same([] { static_cast<void>(std::vector<int>().at(3)); });
  thrown_the_same([] { static_cast<void>(std::string("abc").substr(4)); });
  thrown_the_same([] { static_cast<void>(std::stoi("x")); });
  thrown_the_same([] { static_cast<void>(std::stoi("99999999999999999999")); });
  thrown_the_same([] { static_cast<void>(std::optional<int>().value()); });
  thrown_the_same([] { static_cast<void>(std::get<1>(std::variant<int, char>(1))); });
  thrown_the_same([] { static_cast<void>(std::any_cast<int>(std::any("a"))); });
  thrown_the_same([] { std::function<void()>()(); });
  thrown_the_same([] { std::shared_ptr<int>(std::weak_ptr<int>()); });
  thrown_the_same([] { std::regex("("); });
  thrown_the_same([] { std::regex("[z-a]"); });
  thrown_the_same([] {
    auto broken = std::promise<int>().get_future();
    broken.get();
  });
  thrown_the_same([] { std::future<int>().get(); });
  thrown_the_same([] { static_cast<void>(std::filesystem::file_size("/no/such/file")); });
  thrown_the_same([] {
    std::ifstream file;
    file.exceptions(std::ios::failbit);
    file.open("/no/such/file");
  });
  thrown_the_same([] {
    std::istringstream text("x");
    text.exceptions(std::ios::failbit);
    int n = 0;
    text >> n;
  });
}

TEST_CASE("codes and paths arrive", "[exception_codec]") {
  try {
    travel([] { throw std::system_error(EACCES, std::system_category(), "opening"); });
  } catch (const std::system_error& error) {
    CHECK(error.code() == std::error_code(EACCES, std::system_category()));
  }
  try {
    travel([] {
      throw std::filesystem::filesystem_error("copy", "/a", "/b", std::make_error_code(std::errc::file_exists));
    });
  } catch (const std::filesystem::filesystem_error& error) {
    CHECK(error.code() == std::errc::file_exists);
    CHECK(error.path1() == "/a");
    CHECK(error.path2() == "/b");
  }
  try {
    travel([] { std::regex("["); });
  } catch (const std::regex_error& error) {
    CHECK(error.code() == std::regex_constants::error_brack);
  }
  try {
    travel([] { throw std::future_error(std::future_errc::promise_already_satisfied); });
  } catch (const std::future_error& error) {
    CHECK(error.code() == std::future_errc::promise_already_satisfied);
  }
  try {
    travel([] {
      std::ifstream file;
      file.exceptions(std::ios::failbit);
      file.open("/no/such/file");
    });
  } catch (const std::ios_base::failure& error) {
    CHECK(error.code() == std::io_errc::stream);
  }
}

TEST_CASE("what cannot travel arrives as remote_error with its type and text", "[exception_codec]") {
  const auto remote = [](const std::function<void()>& fn, const std::string& type, const std::string& what) {
    try {
      travel(fn);
      FAIL("an error is missing");
    } catch (const remote_error& error) {
      CHECK(error.type_name() == type);
      CHECK(error.what() == what);
    }
  };
  remote([] { throw errors::derived("text"); }, "errors::derived", "text");
  remote([] { throw 3; }, "int", "an exception of type int");
  remote([] { throw "text"; }, "char const*", "an exception of type char const*");
  remote([] { throw errors::plain{1, "a"}; }, "errors::plain", "an exception of type errors::plain");
  remote([] { throw error_access::make<task_cancelled>("cancelled"); }, "procpool::task_cancelled", "cancelled");
  remote([] { throw error_access::make<serialization_error>("text", "T"); }, "procpool::serialization_error", "text");
  static const errors::category mine;
  remote([] { throw std::system_error(1, mine, "text"); }, "std::system_error", "text: my message");
}

TEST_CASE("registered exceptions arrive as themselves", "[exception_codec]") {
  register_exception<errors::with_code>();
  register_exception<errors::with_code>();
  register_exception<errors::never_saved>();
  register_exception<errors::never_loaded>();
  CHECK_THROWS_AS(travel([] { throw errors::plain{1, "a"}; }), remote_error);
  register_exception<errors::plain>();
  try {
    travel([] { throw errors::with_code(42); });
  } catch (const errors::with_code& error) {
    CHECK(error.code() == 42);
    CHECK(std::string(error.what()) == "code 42");
  }
  try {
    travel([] { throw errors::plain{1, "a"}; });
  } catch (const errors::plain& error) {
    CHECK(error.code == 1);
    CHECK(error.text == "a");
  }
  try {
    travel([] {
      try {
        throw errors::plain{1, "a"};
      } catch (...) {
        std::throw_with_nested(errors::with_code(7));
      }
    });
  } catch (const errors::with_code& error) {
    CHECK(error.code() == 7);
    CHECK_THROWS_AS(std::rethrow_if_nested(error), errors::plain);
  }

  const auto fails = [](const std::function<void()>& fn, const std::string& type) {
    try {
      travel(fn);
      FAIL("an error is missing");
    } catch (const serialization_error& error) {
      CHECK(error.type_name() == type);
      CHECK_THAT(error.what(), Catch::StartsWith("procpool: ") && Catch::Contains(type) &&
                                   Catch::Contains("a text of its own") && Catch::Contains("no way to"));
    }
  };
  fails([] { throw errors::never_saved(); }, "errors::never_saved");
  fails([] { throw errors::never_loaded(); }, "errors::never_loaded");
}

TEST_CASE("nested exceptions keep their nesting", "[exception_codec]") {
  const auto chain = [] {
    try {
      try {
        throw std::out_of_range("inner");
      } catch (...) {
        std::throw_with_nested(std::system_error(EIO, std::generic_category(), "middle"));
      }
    } catch (...) {
      std::throw_with_nested(std::runtime_error("outer"));
    }
  };
  std::vector<std::string> texts;
  try {
    travel(chain);
  } catch (const std::runtime_error& outer) {
    texts.emplace_back(outer.what());
    try {
      std::rethrow_if_nested(outer);
    } catch (const std::system_error& middle) {
      texts.emplace_back(middle.what());
      CHECK(middle.code() == std::errc::io_error);
      CHECK_THROWS_AS(std::rethrow_if_nested(middle), std::out_of_range);
    }
  }
  CHECK(texts == std::vector<std::string>{"outer", "middle: Input/output error"});
  const seen before = look_at(thrown_by(chain));
  CHECK(look_at(round_trip(thrown_by(chain))).type == before.type);
}

TEST_CASE("nesting goes on below a type that cannot travel", "[exception_codec]") {
  try {
    travel([] {
      try {
        throw errors::derived("inner");
      } catch (...) {
        std::throw_with_nested(std::logic_error("outer"));
      }
    });
  } catch (const std::logic_error& outer) {
    CHECK_THROWS_AS(std::rethrow_if_nested(outer), remote_error);
  }
}

TEST_CASE("what was nested on nothing arrives as if it were not nested", "[exception_codec]") {
  try {
    travel([] { std::throw_with_nested(std::logic_error("outer")); });
  } catch (const std::logic_error& outer) {
    std::rethrow_if_nested(outer);  // would end the process
    CHECK(std::string(outer.what()) == "outer");
  }
}

TEST_CASE("chains longer than is kept are cut", "[exception_codec]") {
  std::exception_ptr chain = std::make_exception_ptr(std::runtime_error("0"));
  for (int i = 1; i < 500; ++i) {
    chain = thrown_by([&] {
      try {
        std::rethrow_exception(chain);
      } catch (...) {
        std::throw_with_nested(std::runtime_error(std::to_string(i)));
      }
    });
  }
  int levels = 0;
  for (auto at = round_trip(chain); at != nullptr;) {
    ++levels;
    at = thrown_by([&] {
      try {
        std::rethrow_exception(at);
      } catch (const std::exception& error) {
        std::rethrow_if_nested(error);
      }
    });
  }
  CHECK(levels == max_exception_levels);
}

TEST_CASE("malformed bytes of an exception give a serialization_error or another exception", "[exception_codec]") {
  register_exception<errors::with_code>();
  const std::vector<std::exception_ptr> exceptions{
      std::make_exception_ptr(std::filesystem::filesystem_error("copy", "/a", "/b", std::error_code())),
      std::make_exception_ptr(std::runtime_error("text")),
      std::make_exception_ptr(errors::with_code(3)),
      std::make_exception_ptr(std::bad_variant_access()),
      std::make_exception_ptr(3),
      thrown_by([] {
        try {
          throw 1;
        } catch (...) {
          std::throw_with_nested(errors::with_code(7));
        }
      })};
  std::mt19937 random(1);
  for (const auto& exception : exceptions) {
    heap_writer bytes;
    encode_exception(bytes, exception);
    for (std::size_t length = 0; length < bytes.size(); ++length) {
      byte_reader reader(bytes.data(), length);
      CHECK_THROWS_AS(std::rethrow_exception(decode_exception(reader)), serialization_error);
    }
    for (int i = 0; i < 2000; ++i) {
      heap_writer damaged;
      damaged.write(bytes.data(), bytes.size());
      damaged.data()[random() % bytes.size()] ^= static_cast<std::byte>(random() % 255 + 1);
      byte_reader reader(damaged.data(), damaged.size());
      CHECK(decode_exception(reader) != nullptr);
    }
  }
}

TEST_CASE("a failure to encode or decode is reported with its place", "[exception_codec]") {
  heap_writer bytes;
  encode_failure(bytes, make_error<serialization_error>("decoding T: cut short", std::string("T")));
  byte_reader reader(bytes.data(), bytes.size());
  const serialization_error back = decode_failure(reader, "map: task 17 of 200");
  CHECK(back.what() == std::string("procpool: map: task 17 of 200: decoding T: cut short"));
  CHECK(back.type_name() == "T");
  byte_reader nothing(nullptr, 0);
  CHECK_THAT(decode_failure(nothing, "apply").what(), Catch::StartsWith("procpool: apply: "));
}

#if defined(__GLIBCXX__)
TEST_CASE("a text that would be kept for ever is not taken from bytes at any length", "[exception_codec]") {
  static const std::string text(10'000, 'x');
  // The library's own texts are literals; what arrives may be anybody's.
  const auto back = round_trip(thrown_by([] { std::__throw_bad_variant_access(text.c_str()); }));
  CHECK_THROWS_AS(std::rethrow_exception(back), serialization_error);
}
#endif

TEST_CASE("an error code that its type does not have is not taken from bytes", "[exception_codec]") {
  for (const std::int32_t code : {-1, 16, 167'772'162}) {
    heap_writer bytes;
    bytes.put(exception_form::standard);
    bytes.put(exception_nesting::none);
    put_text(bytes, "std::regex_error");
    put_text(bytes, "text");
    bytes.put(static_cast<std::uint32_t>(standard_exceptions::find(&typeid(std::regex_error))));
    bytes.put(code);
    bytes.put(std::uint32_t{0});
    for (int i = 0; i != 3; ++i) put_text(bytes, "");
    byte_reader reader(bytes.data(), bytes.size());
    CHECK_THROWS_AS(std::rethrow_exception(decode_exception(reader)), serialization_error);
  }
}
