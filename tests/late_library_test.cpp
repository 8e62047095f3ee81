// SPDX-License-Identifier: BSL-1.0
#include <dlfcn.h>

#include <catch2/catch.hpp>

#include <memory>
#include <string>

#include <procpool/procpool.hpp>

namespace {

using function = int (*)(int);

struct close_library {
  void operator()(void* library) const { ::dlclose(library); }
};
using library = std::unique_ptr<void, close_library>;

library load() {
  library loaded(::dlopen(PROCPOOL_LATE_LIBRARY, RTLD_NOW | RTLD_LOCAL));
  REQUIRE(loaded != nullptr);
  return loaded;
}
function triple_of(const library& loaded) {
  const auto found = reinterpret_cast<function>(::dlsym(loaded.get(), "late_triple"));
  REQUIRE(found != nullptr);
  return found;
}

int call(function what, int x) { return what(x); }
int negate(int x) { return -x; }

}  // namespace

TEST_CASE("code that was loaded after the pool was made is refused, and the worker lives", "[late_library]") {
  procpool::process_pool pool{1};
  const library loaded = load();
  const function triple = triple_of(loaded);
  const pid_t worker = pool.stats().workers.at(0).pid;

  CHECK_THROWS_AS(pool.apply(triple, 5), procpool::serialization_error);
  CHECK_THROWS_WITH(pool.apply(call, triple, 5), Catch::Contains("loaded after"));
  CHECK(pool.apply(negate, 5) == -5);
  CHECK(pool.stats().workers.at(0).pid == worker);
}

TEST_CASE("code that was loaded before the pool was made is called", "[late_library]") {
  const library loaded = load();
  procpool::process_pool pool{1};
  CHECK(pool.apply(triple_of(loaded), 5) == 15);
  CHECK(pool.apply(call, triple_of(loaded), 5) == 15);
}
