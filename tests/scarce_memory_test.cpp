// SPDX-License-Identifier: BSL-1.0
// Less memory than a pool would like to have: smaller lanes, an error of the task that needs more, and a pool that goes on.
// (Where memory cannot be populated: restricted_system_test.cpp; where there is no room for any lane: start_test.cpp.)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <new>
#include <ranges>
#include <string>
#include <system_error>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/resources_unchanged.hpp"
#include "support/sanitizers.hpp"

using namespace procpool;
using namespace support;

#if !defined(PROCPOOL_TEST_ASAN)  // which needs more address space than these tests leave

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

/// From now on this process and its children get no mapping of 4 GiB or more (seccomp(2)), as where the kernel counts
/// every reservation (vm.overcommit_memory=2) or a limit is set.
bool refuse_large_mappings() {
  constexpr auto code = [](int operation) { return static_cast<std::uint16_t>(operation); };
  constexpr std::uint32_t high_half_of_length = offsetof(seccomp_data, args) + sizeof(std::uint64_t) + 4;
  sock_filter program[] = {
      {code(BPF_LD | BPF_W | BPF_ABS), 0, 0, offsetof(seccomp_data, nr)},
      {code(BPF_JMP | BPF_JEQ | BPF_K), 0, 3, SYS_mmap},
      {code(BPF_LD | BPF_W | BPF_ABS), 0, 0, high_half_of_length},
      {code(BPF_JMP | BPF_JEQ | BPF_K), 1, 0, 0},
      {code(BPF_RET | BPF_K), 0, 0, SECCOMP_RET_ERRNO | ENOMEM},
      {code(BPF_RET | BPF_K), 0, 0, SECCOMP_RET_ALLOW},
  };
  const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

/// Lets this process have `more` bytes of address space beyond what it has (setrlimit(2), RLIMIT_AS).
bool allow_only(std::size_t more) {
  std::size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)) + more;
  const rlimit limit{most, most};
  return pages != 0 && ::setrlimit(RLIMIT_AS, &limit) == 0;
}

/// Whether the call ends in an error that speaks of memory.
template <class Call>
std::string runs_out(Call call) {
  try {
    call();
  } catch (const out_of_shared_memory&) {
    return "";
  } catch (const std::bad_alloc&) {
    return "";
  } catch (const std::system_error& failure) {
    return failure.code() == std::errc::not_enough_memory ? "" : failure.what();
  } catch (const serialization_error& failure) {
    return std::string(failure.what()).find("bad_alloc") != std::string::npos ? "" : failure.what();
  }
  return "it went through";
}

/// Whether the pool is as good as new.
std::string goes_on(process_pool<>& pool) {
  const auto squares = pool.map([](int x) { return x * x; }, std::views::iota(0, 100));
  if (squares[99] != 9801) return "wrong result";
  const std::string text(mib, 'x');
  if (pool.apply([](std::string back) { return back; }, text) != text) return "wrong text";
  const pool_stats stats = pool.stats();
  return stats.workers_crashed == 0 && stats.tasks_queued == 0 ? "" : "not as it was";
}

}  // namespace

TEST_CASE("where large reservations are refused lanes are smaller", "[process_pool][memory]") {
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          if (!refuse_large_mappings()) return "no seccomp";
          process_pool pool{2};
          if (std::string wrong = goes_on(pool); !wrong.empty()) return wrong;
          const std::string large(300 * mib, 'x');  // what a lane of 256 MiB cannot hold
          const std::string as_argument =
              runs_out([&] { pool.apply([](std::string_view text) { return text.size(); }, large); });
          if (!as_argument.empty()) return "as an argument: " + as_argument;
          const std::string as_result = runs_out([&] { pool.apply([] { return std::string(300 * mib, 'x'); }); });
          if (!as_result.empty()) return "as a result: " + as_result;
          return goes_on(pool);
        }) == "");
}

TEST_CASE("a parent that has no memory for a result goes on without it", "[process_pool][memory]") {
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          process_pool pool{2};
          pool.apply([] {});
          if (!allow_only(32 * mib)) return "setrlimit failed";
          std::string wrong = runs_out([&] { pool.apply([] { return std::string(100 * mib, 'x'); }); });
          if (wrong.empty()) wrong = runs_out([&] { pool.make_shared_array<char>(100 * mib); });
          return wrong.empty() ? goes_on(pool) : wrong;
        }) == "");
}

TEST_CASE("a worker that has no memory for its task loses that task only", "[process_pool][memory]") {
  resources_unchanged guard;
  CHECK(in_child([]() -> std::string {
          process_pool pool{1};
          if (!pool.apply([] { return allow_only(32 * mib); })) return "setrlimit failed";
          std::string wrong = runs_out([&] {
            pool.apply([] {
              static std::vector<char> kept;  // or the compiler leaves it out
              kept.resize(100 * mib);
              return kept.size();
            });
          });
          if (wrong.empty())
            wrong = runs_out(
                [&] { pool.apply([](std::string text) { return text.size(); }, std::string(100 * mib, 'x')); });
          return wrong.empty() ? goes_on(pool) : wrong;
        }) == "");
}

#endif
