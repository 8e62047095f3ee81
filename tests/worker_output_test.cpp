// SPDX-License-Identifier: BSL-1.0
// What tasks and the application print: it lies in buffers, which a fork copies and a death loses.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cwchar>
#include <iostream>
#include <streambuf>
#include <string>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/resources_unchanged.hpp"
#include "support/tasks.hpp"

using namespace procpool;
using namespace support;

namespace {

/// What `body` prints on standard output, in a child, with all that it starts. `body` is called with the file that this
/// is, and standard output has a large buffer.
template <class Body>
std::string printed_by(Body body) {
  std::FILE* const file = std::tmpfile();
  REQUIRE(file != nullptr);
  CHECK(in_child([&] {
          ::dup2(::fileno(file), STDOUT_FILENO);
          std::setvbuf(stdout, nullptr, _IOFBF, 1 << 16);
          body(::fileno(file));
          return std::string();
        }) == "");
  std::string text;
  std::rewind(file);
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file)) text += static_cast<char>(c);
  std::fclose(file);
  return text;
}

/// Keeps all text where no put area shows it, until it is flushed.
class hoarding_buffer final : public std::streambuf {
 protected:
  int_type overflow(int_type c) override {
    kept_ += static_cast<char>(c);
    return c;
  }
  int sync() override {
    const auto written = ::write(STDOUT_FILENO, kept_.data(), kept_.size());
    kept_.clear();
    return written < 0 ? -1 : 0;
  }

 private:
  std::string kept_;
};

}  // namespace

TEST_CASE("no text on standard output is lost or doubled", "[process_pool][output]") {
  resources_unchanged guard;
  const std::string text = printed_by([](int file) {
    std::ios::sync_with_stdio(false);
    std::FILE* const own = ::fdopen(::dup(file), "w");
    std::fprintf(own, "[own file]");
    std::printf("[before, stdio]");
    std::cout << "[before, iostream]";
    {
      process_pool pool{pool_options{.processes = 2,
                                     .initializer = [] { std::printf("[initializer %zu]", this_worker::index()); },
                                     .finalizer = [] { std::cout << "[finalizer " << this_worker::index() << "]"; }}};
      std::printf("[meanwhile]");
      for (int i = 0; i != 50; ++i) {
        pool.apply(
            [](int x) {
              if (x % 2 == 0) {
                std::printf("[task %d]", x);
              } else {
                std::cout << "[task " << x << "]";
              }
            },
            i);
      }
      try {
        pool.apply([] {
          std::printf("[throws]");
          throw std::runtime_error("no");
        });
      } catch (const std::runtime_error&) {
      }
      // After its task a worker has nothing left to print that its death could take along.
      pool.broadcast([] { std::printf("[then killed %zu]", this_worker::index()); });
      try {
        pool.apply(ways_to_die::raise_kill);
      } catch (const worker_crashed&) {
      }
      pool.broadcast([] {});  // the replacement is there
    }
    std::printf("[after]");
    std::fflush(stdout);
    std::fclose(own);
  });
  const auto count = [&](const std::string& part) {
    int found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  };
  INFO(text);
  for (const char* once : {"[own file]", "[before, stdio]", "[before, iostream]", "[meanwhile]", "[throws]", "[after]",
                           "[then killed 0]", "[then killed 1]", "[finalizer 0]", "[finalizer 1]"}) {
    CHECK(count(once) == 1);
  }
  for (int i = 0; i != 50; ++i) CHECK(count("[task " + std::to_string(i) + "]") == 1);
  CHECK(count("[initializer 0]") + count("[initializer 1]") == 3);
}

TEST_CASE("no text is lost that a stream keeps in any other way", "[process_pool][output]") {
  resources_unchanged guard;
  // Each task is the last that its worker lives through.
  const auto print_and_die = [](auto print) {
    return printed_by([print](int) {
      process_pool pool{1};
      pool.apply(print);
      CHECK_THROWS_AS(pool.apply(ways_to_die::raise_kill), worker_crashed);
    });
  };
  CHECK(print_and_die([] { std::cout << "[synchronised with stdio]"; }) == "[synchronised with stdio]");
  CHECK(print_and_die([] { std::printf("[stdio]"); }) == "[stdio]");
  CHECK(print_and_die([] {
          stdout = ::fdopen(::dup(STDOUT_FILENO), "w");  // which nobody has printed narrow text to
          std::wprintf(L"[wide]");
        }) == "[wide]");
  CHECK(print_and_die([] {
          std::setvbuf(stderr, nullptr, _IOFBF, 1 << 16);
          ::dup2(STDOUT_FILENO, STDERR_FILENO);
          std::fprintf(stderr, "[stderr]");
        }) == "[stderr]");
  CHECK(print_and_die([] {
          static hoarding_buffer own;
          std::cout.rdbuf(&own);
          std::cout << "[a buffer of its own]";
        }) == "[a buffer of its own]");
}

TEST_CASE("what a task prints before it calls exit() is not lost", "[process_pool][output]") {
  resources_unchanged guard;
  CHECK(printed_by([](int) {
          process_pool pool{1};
          try {
            pool.apply([] {
              std::printf("[fatal: no such file]");
              std::exit(1);
            });
          } catch (const worker_crashed&) {
          }
        }) == "[fatal: no such file]");
}
