// SPDX-License-Identifier: BSL-1.0
// Results and exceptions of every kind, read from bytes that anybody may have written, by the code that reads those of
// a worker: from a private copy, and from where they lie while they change. Whatever they are, reading them ends in a
// value that can be sent on or in an error; looks at no byte outside, and at none twice where they may change; and
// allocates no more than a value of so many bytes may need.
//
// `payload_fuzzer --write-seeds=DIRECTORY` writes what honest workers would send, to begin with, and DIRECTORY.list, a
// list of the files as -seed_inputs takes it.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include <procpool/detail/settle.hpp>

#include "payload_types.hpp"
#include "support/allocations.hpp"
#include "support/hostile_memory.hpp"
#include "support/test_jobs.hpp"

using namespace procpool::detail;
using fuzz::hostile_memory;
using fuzz::require;

namespace {

/// Two arrays that have come beside the bytes.
class two_arrays final : public attachment_source {
 public:
  std::shared_ptr<array_block> take(std::uint64_t identity) override {
    for (const auto& each : blocks) {
      if (each->identity() == identity) return each;
    }
    // Seeds name them by their place: inodes differ from run to run.
    return identity < std::size(blocks) ? blocks[identity] : nullptr;
  }
  std::shared_ptr<array_block> blocks[2]{array_block::create(64), array_block::create(4096)};
};

two_arrays& arrays() {
  static two_arrays only;
  return only;
}

using reader = void (*)(reply&);
using seeds = std::vector<std::vector<std::byte>>;

struct kind_of_payload {
  const char* name;
  reply_kind kind;
  void (*read)(reply&);
  /// How many bytes of memory a value takes for each byte that it is encoded to, at the most: nodes and growing arrays
  /// of things that are small as bytes. 2 where a value is as large as its bytes, which are copied once.
  std::size_t growth;
  void (*write_seeds)(seeds&);
};

fuzz::idle_job job("fuzz", 10);

struct measured {
  std::size_t largest;
  std::size_t most;
};
measured last_measured;

template <class R>
procpool::outcome<R> read_measured(reply& how) {
  fuzz::allocations all;
  auto got = read_reply<R>(job, 3, how);
  all.stop();
  last_measured = {all.largest(), all.most()};
  return got;
}

/// What went in must come out, and a value can be sent on.
template <class R>
void read(reply& how) {
  const auto got = read_measured<R>(how);
  if (!got) return;
  heap_writer bytes;
  encode<R>(bytes, *got);
  byte_reader again(bytes.data(), bytes.size(), &arrays());
  static_cast<void>(decode<R>(again));
  require(again.remaining() == 0, "a value that was read, and sent on, is not read whole");
}

void read_error(reply& how) {
  const auto got = read_measured<int>(how);
  require(!got, "an exception became a value");
  const exception_facts facts(got.error());  // looks at its text and what it is nested on
  heap_writer bytes;
  encode_exception(bytes, got.error());
}

template <class R>
void add_seed(seeds& to, const R& value) {
  heap_writer bytes;
  encode<R>(bytes, value);
  to.emplace_back(bytes.data(), bytes.data() + bytes.size());
}

template <class R>
void no_seeds(seeds&) {}

template <class R>
void value_seeds(seeds& to) {
  if constexpr (std::is_same_v<R, fuzz::sealed>) {
    add_seed<R>(to, fuzz::sealed::of(7));
  } else if constexpr (std::is_same_v<R, std::unique_ptr<fuzz::linked>>) {
    R list;
    for (int i = 0; i != 20; ++i) list = std::make_unique<fuzz::linked>(fuzz::linked{std::move(list), i});
    add_seed<R>(to, list);
  } else if constexpr (std::is_same_v<R, std::shared_ptr<fuzz::shape>>) {
    add_seed<R>(to, std::make_shared<fuzz::square>());
    add_seed<R>(to, std::make_shared<fuzz::label>());
  } else if constexpr (std::is_same_v<R, std::shared_ptr<fuzz::needs_two>>) {
    add_seed<R>(to, std::make_shared<fuzz::needs_two>(1, 2));
  } else if constexpr (std::is_same_v<R, fuzz::person>) {
    fuzz::person one{"one", {}, {}};
    fuzz::person two{"two", fuzz::point{1, 2}, {}};
    two.friends.push_back(one);
    one.friends.push_back(std::move(two));
    add_seed<R>(to, one);
  } else {
    add_seed<R>(to, R());
  }
}

template <class... Values>
using several = std::vector<std::variant<Values...>>;

using nested = std::map<std::string, std::vector<std::optional<std::variant<int, std::string, std::vector<double>>>>>;

template <class R>
consteval kind_of_payload value(const char* name, std::size_t growth) {
  return {name, reply_kind::value, &read<R>, growth, &value_seeds<R>};
}

void exception_seeds(seeds& to) {
  const auto add = [&to](const auto& error) {
    heap_writer bytes;
    encode_exception(bytes, error);
    to.emplace_back(bytes.data(), bytes.data() + bytes.size());
  };
  const auto nested_on = [](const auto& outer, const std::exception_ptr& inner) {
    try {
      try {
        std::rethrow_exception(inner);
      } catch (...) {
        std::throw_with_nested(outer);
      }
    } catch (...) {
      return std::current_exception();
    }
  };
  add(std::make_exception_ptr(std::runtime_error("text")));
  add(std::make_exception_ptr(std::bad_variant_access()));
  add(std::make_exception_ptr(std::system_error(2, std::generic_category(), "text")));
  add(std::make_exception_ptr(
      std::filesystem::filesystem_error("text", "a", "b", std::error_code(2, std::system_category()))));
  add(std::make_exception_ptr(std::ios_base::failure("text")));
  add(std::make_exception_ptr(fuzz::own_error("text")));
  add(std::make_exception_ptr(7));
  auto deep = std::make_exception_ptr(fuzz::own_error("inner"));
  for (int i = 0; i != 5; ++i) deep = nested_on(std::out_of_range("outer"), deep);
  add(nested_on(fuzz::own_error("outer"), deep));
}

void failure_seeds(seeds& to) {
  heap_writer bytes;
  put_text(bytes, "type");
  put_text(bytes, "cause");
  to.emplace_back(bytes.data(), bytes.data() + bytes.size());
}

constexpr kind_of_payload kinds[] = {
    value<std::string>("string", 2),
    value<std::vector<int>>("vector<int>", 2),
    value<std::u16string>("u16string", 2),
    value<std::vector<double>>("vector<double>", 2),
    value<std::optional<std::string>>("optional<string>", 2),
    value<std::variant<int, std::string, std::vector<double>>>("variant", 2),
    value<std::pair<std::string, std::vector<fuzz::point>>>("pair", 2),
    value<std::tuple<fuzz::color, bool, std::string, std::complex<double>>>("tuple", 2),
    value<fuzz::flags>("flags", 2),
    value<fuzz::with_arrays>("with_arrays", 2),
    value<std::array<std::string, 3>>("array<string>", 2),
    value<std::chrono::nanoseconds>("nanoseconds", 2),
    value<int (*)(int)>("function pointer", 2),
    value<procpool::shared_array<int>>("shared_array", 2),
    value<std::pair<procpool::shared_array<double>, procpool::shared_array<char>>>("shared_arrays", 2),
    value<std::vector<bool>>("vector<bool>", 2),
    value<std::valarray<double>>("valarray", 3),
    value<fuzz::minimal>("save_minimal", 4),
    value<fuzz::versioned>("versioned", 4),
    value<std::bitset<100>>("bitset", 4),
    value<std::vector<std::string>>("vector<string>", 16),
    value<std::deque<int>>("deque", 4),
    value<std::list<short>>("list", 16),
    value<std::forward_list<char>>("forward_list", 24),
    value<std::set<std::string>>("set", 12),
    value<std::multiset<char>>("multiset<char>", 48),
    value<std::map<std::string, int>>("map", 12),
    value<std::unordered_map<int, std::string>>("unordered_map", 12),
    value<std::unordered_multiset<std::uint16_t>>("unordered_multiset", 32),
    value<std::vector<std::deque<int>>>("vector<deque>", 128),
    value<nested>("nested", 48),
    value<several<int, bool, fuzz::point>>("vector<variant>", 16),
    value<std::stack<int>>("stack", 4),
    value<std::queue<std::string>>("queue", 16),
    value<std::priority_queue<int>>("priority_queue", 4),
    value<fuzz::person>("person", 24),
    value<std::unique_ptr<fuzz::linked>>("linked", 16),
    value<fuzz::sealed>("sealed", 16),
    value<fuzz::sized>("sized", 8),
    value<std::vector<fuzz::nothing>>("vector<nothing>", 4),
    value<std::shared_ptr<fuzz::shape>>("polymorphic", 16),
    value<std::shared_ptr<fuzz::needs_two>>("load_and_construct", 16),
    value<fuzz::pointers>("pointers", 32),
    {"exception", reply_kind::exception, &read_error, 16, &exception_seeds},
    {"unserializable", reply_kind::unserializable, &read_error, 16, &failure_seeds},
    {"void", reply_kind::value, [](reply& how) { require(read_measured<void>(how).has_value(), "void is no value"); },
     0, [](seeds&) {}},
};

/// What errors with their texts, and objects that are large but empty, may take whatever the size of the input.
constexpr std::size_t whatever = 64 * 1024;

struct free_bytes {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};

void write_seeds(const std::string& directory) {
  int number = 0;
  std::ofstream list(directory + ".list");
  for (std::size_t kind = 0; kind != std::size(kinds); ++kind) {
    seeds all;
    kinds[kind].write_seeds(all);
    for (const auto& bytes : all) {
      for (const char mode : {'\0', '\1'}) {
        const std::string name = directory + "/" + std::to_string(number);
        list << (number++ == 0 ? "" : ",") << name;
        std::ofstream file(name, std::ios::binary);
        file << static_cast<char>(kind) << mode;
        file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      }
    }
  }
  std::cout << number << " seeds in " << directory << "\n";
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  procpool::register_exception<fuzz::own_error>();
  const std::string option = "--write-seeds=";
  for (int i = 1; i < *argc; ++i) {
    const std::string argument = (*argv)[i];
    if (!argument.starts_with(option)) continue;
    write_seeds(argument.substr(option.size()));
    std::exit(0);
  }
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::input program(data, size);
  const kind_of_payload& kind = kinds[program.below(std::size(kinds))];
  const std::uint8_t mode = program.byte();
  const bool stable = (mode & 1) != 0;
  struct {
    std::uint8_t fetch;
    std::uint16_t offset;
    std::uint64_t value;
  } changes[3];
  const std::size_t change_count = (mode >> 1) % 4;
  for (std::size_t i = 0; i != change_count; ++i) changes[i] = {program.byte(), program.word(), program.odd_number(8)};

  // Where the sanitizer sees the first byte before and behind.
  const auto bytes = program.rest();
  void* room = nullptr;
  require(::posix_memalign(&room, payload_alignment, bytes.empty() ? 1 : bytes.size()) == 0, "no memory for the input");
  const std::unique_ptr<std::byte, free_bytes> at(static_cast<std::byte*>(room));
  if (!bytes.empty()) std::memcpy(at.get(), bytes.data(), bytes.size());
  auto& memory = hostile_memory::instance();
  memory.place(at.get(), bytes.size());
  for (std::size_t i = 0; i != change_count && !stable && bytes.size() >= 8; ++i) {
    memory.change_at(changes[i].fetch, changes[i].offset % (bytes.size() - 7), changes[i].value, 8);
  }

  byte_reader reader(at.get(), bytes.size(), &arrays());
  reply how{kind.kind, &reader, stable, nullptr};
  if (stable) {
    kind.read(how);
  } else {
    const hostile_memory::watching here;
    const hostile_memory::each_byte_once once;
    kind.read(how);
  }
  memory.forget_changes();
  if (last_measured.largest > std::max<std::size_t>(2, kind.growth) * bytes.size() + whatever ||
      last_measured.most > kind.growth * bytes.size() + whatever) {
    std::fprintf(stderr, "fuzz: %s: %zu bytes of input, %zu allocated at once, %zu in all\n", kind.name, bytes.size(),
                 last_measured.largest, last_measured.most);
    require(false, "more is allocated than so many bytes are worth");
  }
  return 0;
}
