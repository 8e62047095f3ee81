// SPDX-License-Identifier: BSL-1.0
// What of the system a hardened worker keeps: files, network, limits.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/hardened.hpp"
#include "support/resources_unchanged.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

using paths = std::vector<std::filesystem::path>;
const paths system_directories{"/usr", "/bin", "/lib", "/etc"};

int twice(int x) { return 2 * x; }

void spend_time() {
  for (volatile bool for_ever = true; for_ever;) {
  }
}

int open_for(const std::string& path, int flags) {
  const int file = ::open(path.c_str(), flags | O_CLOEXEC, 0600);
  const int error = error_of(file);
  if (file >= 0) ::close(file);
  return error;
}

}  // namespace

TEST_CASE("a hardened worker opens what is in its lists and nothing else", "[hardening][files]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(landlock_versions({5, 3, 2, 1})));
  CAPTURE(version);
  const scratch_directory readable;
  const scratch_directory writable;
  const scratch_directory neither;
  paths reading = system_directories;
  reading.push_back(readable.path());
  hardening_options options{.readable = reading, .writable = {writable.path()}};
  process_pool pool{pool_options{.processes = 1, .initializer = hardened_on(version, options)}};
  const auto opened = [&pool](const scratch_directory& in, const char* name, int flags) {
    return pool.apply(open_for, (in.path() / name).string(), flags);
  };
  CHECK(opened(readable, "file", O_RDONLY) == 0);
  CHECK(opened(readable, "", O_RDONLY | O_DIRECTORY) == 0);
  CHECK(opened(readable, "file", O_WRONLY) == EACCES);
  CHECK(opened(readable, "file", O_RDWR | O_TRUNC) == EACCES);
  CHECK(is_refusal(opened(readable, "file", O_RDONLY | O_TRUNC)));
  CHECK(opened(readable, "new", O_WRONLY | O_CREAT) == EACCES);
  CHECK(opened(writable, "file", O_RDONLY) == 0);
  CHECK(opened(writable, "file", O_WRONLY | O_TRUNC) == 0);
  CHECK(opened(writable, "new", O_WRONLY | O_CREAT | O_EXCL) == 0);
  CHECK(opened(neither, "file", O_RDONLY) == EACCES);
  CHECK(opened(neither, "file", O_WRONLY) == EACCES);
  CHECK(opened(neither, "", O_RDONLY | O_DIRECTORY) == EACCES);
  CHECK(opened(neither, "new", O_WRONLY | O_CREAT) == EACCES);

  using two_names = int (*)(std::string, std::string);
  const auto with_two = [&](two_names call, const scratch_directory& from, const char* name,
                            const scratch_directory& to, const char* other) {
    return pool.apply(call, (from.path() / name).string(), (to.path() / other).string());
  };
  const two_names rename = [](std::string from, std::string to) {
    return error_of(std::rename(from.c_str(), to.c_str()));
  };
  CHECK(is_refusal(with_two(rename, readable, "file", readable, "renamed")));
  CHECK(with_two(rename, writable, "new", writable, "renamed") == 0);
  const int moved_out = with_two(rename, writable, "renamed", neither, "renamed");
  CHECK((is_refusal(moved_out) || moved_out == EXDEV));
  const two_names link = [](std::string from, std::string to) { return error_of(::link(from.c_str(), to.c_str())); };
  const int linked_in = with_two(link, neither, "file", writable, "linked");
  CHECK((is_refusal(linked_in) || linked_in == EXDEV));
  const auto remove = [](std::string path) { return error_of(::unlink(path.c_str())); };
  CHECK(is_refusal(pool.apply(remove, (readable.path() / "file").string())));
  CHECK(pool.apply(remove, (writable.path() / "renamed").string()) == 0);
  const auto shorten = [](std::string path) { return error_of(::truncate(path.c_str(), 0)); };
  CHECK(is_refusal(pool.apply(shorten, (readable.path() / "file").string())));
  CHECK(is_refusal(pool.apply(shorten, (neither.path() / "file").string())));
  CHECK(std::filesystem::file_size(readable.path() / "file") == 4);
  CHECK(std::filesystem::file_size(neither.path() / "file") == 4);

  // Programs are run from where one may read, and from nowhere else.
  std::filesystem::copy("/bin/true", writable.path() / "program");
  const auto run = [](std::string path) { return std::system(path.c_str()); };
  CHECK(pool.apply(run, std::string("/bin/true")) == 0);
  CHECK(pool.apply(run, (writable.path() / "program").string()) != 0);

  // What the library and the C library need is there.
  CHECK(opened(neither, "/dev/null", O_RDWR) == 0);
  CHECK(opened(neither, "/dev/urandom", O_RDONLY) == 0);
  CHECK(opened(neither, "/proc/self/statm", O_RDONLY) == 0);
  CHECK(is_refusal(opened(neither, ("/proc/" + std::to_string(::getpid()) + "/statm").c_str(), O_RDONLY)));
  CHECK(pool.apply([] { return make_shared_array<int>(10); }).size() == 10);
  CHECK(pool.apply([] {
    process_pool inner{1};
    return inner.apply(twice, 4);
  }) == 8);
}

TEST_CASE("without a list the files are as before", "[hardening][files]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(landlock_versions({5, 2})));
  CAPTURE(version);
  const scratch_directory one;
  const scratch_directory other;
  process_pool pool{pool_options{.processes = 1, .initializer = hardened_on(version)}};
  CHECK(pool.apply(
      [](std::string from, std::string to) {
        std::filesystem::rename(from + "/file", to + "/moved");
        std::filesystem::resize_file(to + "/moved", 1);
        std::filesystem::create_symlink(to + "/moved", from + "/link");
        return std::filesystem::file_size(from + "/link") == 1;
      },
      one.path().string(), other.path().string()));
}

TEST_CASE("a hardened worker without files opens none", "[hardening][files]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .initializer = hardened({.files = false})}};
  CHECK(pool.apply(open_for, std::string("/etc/passwd"), O_RDONLY) == EACCES);
  CHECK(pool.apply(open_for, std::string("/bin/true"), O_RDONLY) == EACCES);
  CHECK(pool.apply(open_for, std::string("/dev/null"), O_RDWR) == 0);
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("a path that is not there is named", "[hardening][files]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  hardening_options options{.readable = {"/no/such/place"}, .best_effort = GENERATE(false, true)};
  CHECK_THAT(text_of<worker_start_error>(
                 [&] { process_pool pool{pool_options{.processes = 1, .initializer = hardened(options)}}; }),
             Catch::Contains("open /no/such/place: No such file or directory"));
}

TEST_CASE("a hardened worker without network makes no socket", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  process_pool pool{pool_options{.processes = 1, .initializer = hardened({.network = false})}};
  for (const int family : {AF_INET, AF_INET6, AF_UNIX, AF_NETLINK}) {
    CAPTURE(family);
    CHECK(pool.apply([](int of) { return error_of(::socket(of, SOCK_DGRAM, 0)); }, family) == EACCES);
  }
  CHECK(pool.apply([] {
    int ends[2];
    return ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0 && ::write(ends[0], "x", 1) == 1;
  }));
  CHECK(pool.apply(twice, 4) == 8);
}

TEST_CASE("a hardened worker keeps to each limit", "[hardening][limits]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const auto worker_with = [](hardening_options options) {
    return pool_options{.processes = 1, .initializer = hardened(std::move(options))};
  };
  SECTION("of address space") {
    process_pool pool{worker_with({.address_space = std::size_t{256} << 20})};
    const auto map = [](std::size_t bytes) {
      void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (at == MAP_FAILED) return errno;
      ::munmap(at, bytes);
      return 0;
    };
    CHECK(pool.apply(map, std::size_t{128} << 20) == 0);
    CHECK(pool.apply(map, std::size_t{300} << 20) == ENOMEM);
    // Results lie in memory that was there before.
    CHECK(pool.apply([] { return std::string(50'000'000, 'x'); }).size() == 50'000'000);
    CHECK(pool.apply(twice, 4) == 8);
    CHECK(pool.stats().workers_crashed == 0);
  }
  SECTION("of processor time") {
    process_pool pool{worker_with({.cpu_time = 1s})};
    const auto crash = thrown_by<worker_crashed>([&] { pool.apply([] { spend_time(); }); });
    CHECK(crash.signal() == SIGXCPU);
    // One that has caught the signal gets a second more.
    const auto later = thrown_by<worker_crashed>([&] {
      pool.apply([] {
        ::signal(SIGXCPU, SIG_IGN);
        spend_time();
      });
    });
    CHECK(later.signal() == SIGKILL);
    CHECK(pool.apply(twice, 4) == 8);
  }
  SECTION("of a file's size") {
    const scratch_directory place;
    process_pool pool{worker_with({.file_size = 100'000})};
    const auto write = [](std::string path, std::size_t bytes) {
      std::ofstream(path) << std::string(bytes, 'x') << std::flush;
      return std::filesystem::file_size(path);
    };
    CHECK(pool.apply(write, (place.path() / "small").string(), std::size_t{90'000}) == 90'000);
    const auto crash =
        thrown_by<worker_crashed>([&] { pool.apply(write, (place.path() / "large").string(), std::size_t{110'000}); });
    CHECK(crash.signal() == SIGXFSZ);
    CHECK(std::filesystem::file_size(place.path() / "large") <= 100'000);
  }
  SECTION("of descriptors") {
    process_pool pool{worker_with({.open_files = 64})};
    const auto [error, count] = pool.apply([] {
      std::vector<int> opened;
      for (int fd; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) opened.push_back(fd);
      const int failed_by = errno;
      for (const int fd : opened) ::close(fd);
      return std::pair(failed_by, opened.size());
    });
    CHECK(error == EMFILE);
    CHECK(count < 64);
    CHECK(pool.apply(twice, 4) == 8);
  }
  SECTION("of core dumps") {
    const auto core_limit = [] {
      struct rlimit limit{};
      ::getrlimit(RLIMIT_CORE, &limit);
      return std::pair(limit.rlim_cur, limit.rlim_max);
    };
    CHECK(process_pool{worker_with({})}.apply(core_limit) == std::pair(rlim_t{0}, rlim_t{0}));
    const auto before = core_limit();
    CHECK(process_pool{worker_with({.core_size = std::nullopt})}.apply(core_limit) == before);
  }
  SECTION("that it cannot raise") {
    process_pool pool{worker_with({.file_size = 1000, .open_files = 64})};
    for (const int resource : {static_cast<int>(RLIMIT_FSIZE), static_cast<int>(RLIMIT_NOFILE)}) {
      CHECK(pool.apply(
                [](int of) {
                  const struct rlimit more{100'000, 100'000};
                  return error_of(::prlimit(0, static_cast<__rlimit_resource>(of), &more, nullptr));
                },
                resource) == EPERM);
    }
  }
}

TEST_CASE("hardening twice takes more, and gives nothing back", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const scratch_directory first;
  process_pool pool{pool_options{.processes = 1, .initializer = [path = first.path()] {
                                   harden_worker({.file_size = 1000});
                                   harden_worker({.readable = {path}, .file_size = 100'000});
                                 }}};
  CHECK(pool.apply(open_for, (first.path() / "file").string(), O_RDONLY) == 0);
  CHECK(pool.apply(open_for, std::string("/etc/passwd"), O_RDONLY) == EACCES);
  CHECK(is_refusal(pool.apply([](pid_t parent) { return error_of(::kill(parent, SIGURG)); }, ::getpid())));
  CHECK(pool.apply([] {
    struct rlimit limit{};
    ::getrlimit(RLIMIT_FSIZE, &limit);
    return limit.rlim_cur;
  }) == 1000);
}
