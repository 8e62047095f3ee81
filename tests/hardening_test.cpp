// SPDX-License-Identifier: BSL-1.0
// What a hardened worker can no longer do to others, by trying each, and what it still can.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <ranges>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <catch2/catch.hpp>
#include <procpool/procpool.hpp>

#include "support/child_process.hpp"
#include "support/deaths.hpp"
#include "support/eventually.hpp"
#include "support/hardened.hpp"
#include "support/processes.hpp"
#include "support/resources_unchanged.hpp"
#include "support/shared_words.hpp"
#include "support/thrown.hpp"

using namespace procpool;
using namespace support;
using namespace std::chrono_literals;

namespace {

int twice(int x) { return 2 * x; }

/// What the attempts below are aimed at: a worker has it at the same address as its parent and its siblings.
volatile std::uint64_t treasure = 4711;
volatile std::uint64_t spoils = 0;

iovec bytes_of(volatile std::uint64_t& word) { return {const_cast<std::uint64_t*>(&word), sizeof(word)}; }

// ---- ways to reach into another process; each returns its errno, 0 if it worked --------------------------------

int trace(pid_t pid) {
  const int error = error_of(::ptrace(PTRACE_SEIZE, pid, nullptr, nullptr));
  if (error == 0 &&
      ::ptrace(PTRACE_INTERRUPT, pid, nullptr, nullptr) == 0) {  // what has not stopped cannot be detached
    ::waitpid(pid, nullptr, __WALL);
    ::ptrace(PTRACE_DETACH, pid, nullptr, nullptr);
  }
  return error;
}
int read_memory(pid_t pid) {
  const iovec here = bytes_of(spoils);
  const iovec there = bytes_of(treasure);
  return error_of(::process_vm_readv(pid, &here, 1, &there, 1, 0));
}
int write_memory(pid_t pid) {
  const iovec here = bytes_of(spoils);
  const iovec there = bytes_of(treasure);
  return error_of(::process_vm_writev(pid, &here, 1, &there, 1, 0));
}
int open_memory(pid_t pid) {
  const int file = ::open(("/proc/" + std::to_string(pid) + "/mem").c_str(), O_RDWR | O_CLOEXEC);
  const int error = error_of(file);
  if (file >= 0) ::close(file);
  return error;
}
int take_descriptor(pid_t pid) {
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (process < 0) return -1;  // this one is allowed
  const long taken = ::syscall(detail::newer_calls::pidfd_getfd, process, 0, 0);
  const int error = error_of(taken);
  if (taken >= 0) ::close(static_cast<int>(taken));
  ::close(process);
  return error;
}
int compare(pid_t pid) {
  constexpr int same_files = 2;  // KCMP_FILES
  return error_of(::syscall(SYS_kcmp, ::getpid(), pid, same_files, 0, 0));
}
int limit_it(pid_t pid) {
  struct rlimit limit{};
  return error_of(::prlimit(pid, RLIMIT_CORE, nullptr, &limit));
}

// ---- ways to send it a signal -----------------------------------------------------------------------------------

constexpr int harmless = SIGURG;  // ignored by default

int signal_process(pid_t pid) { return error_of(::kill(pid, harmless)); }
int signal_group(pid_t pid) { return error_of(::kill(-::getpgid(pid), harmless)); }
int signal_thread(pid_t pid) { return error_of(::syscall(SYS_tgkill, pid, pid, harmless)); }
int signal_thread_alone(pid_t pid) { return error_of(::syscall(SYS_tkill, pid, harmless)); }
int queue_signal(pid_t pid) { return error_of(::sigqueue(pid, harmless, sigval{})); }
int signal_by_descriptor(pid_t pid) {
  const int process = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  const int error = error_of(::syscall(detail::newer_calls::pidfd_send_signal, process, harmless, nullptr, 0));
  ::close(process);
  return error;
}
int signal_socket_owner(pid_t pid) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return -1;
  const int error = error_of(::ioctl(ends[0], FIOSETOWN, &pid));
  ::close(ends[0]);
  ::close(ends[1]);
  return error;
}

struct way {
  const char* name;
  int (*attempt)(pid_t);
};
const std::vector<way> into_memory{{"ptrace", trace},
                                   {"process_vm_readv", read_memory},
                                   {"process_vm_writev", write_memory},
                                   {"/proc/PID/mem", open_memory},
                                   {"pidfd_getfd", take_descriptor},
                                   {"kcmp", compare},
                                   {"prlimit", limit_it}};
const std::vector<way> by_signal{{"kill", signal_process},          {"kill of a group", signal_group},
                                 {"tgkill", signal_thread},         {"tkill", signal_thread_alone},
                                 {"sigqueue", queue_signal},        {"pidfd_send_signal", signal_by_descriptor},
                                 {"FIOSETOWN", signal_socket_owner}};

/// "" if all that tasks usually do works in this worker.
std::string ordinary_task() {
  std::atomic<int> sum{0};
  std::vector<std::thread> threads;
  for (int i = 0; i != 4; ++i) threads.emplace_back([&sum, i] { sum += i; });
  for (std::thread& each : threads) each.join();
  if (sum != 6) return "threads";
  std::thread sleeper([] { ::pause(); });
  ::pthread_cancel(sleeper.native_handle());
  sleeper.join();
  const pid_t child = ::fork();
  if (child == 0) ::_exit(7);
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) return "fork";
  std::FILE* const program = ::popen("echo said", "r");
  char said[16] = {};
  if (program == nullptr || std::fgets(said, sizeof(said), program) == nullptr || ::pclose(program) != 0)
    return "popen";
  if (std::string(said) != "said\n") return "echo";
  const std::vector<char> memory(std::size_t{100} << 20, 'x');
  if (memory.back() != 'x') return "memory";
  static volatile sig_atomic_t caught;
  caught = 0;
  ::signal(SIGUSR1, [](int) { caught = caught + 1; });
  ::raise(SIGUSR1);
  ::kill(::getpid(), SIGUSR1);
  ::signal(SIGUSR1, SIG_DFL);
  if (caught != 2) return "own signals";
  const int server = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (server < 0 || ::listen(server, 1) != 0) return "socket";
  ::close(server);
  if (std::filesystem::temp_directory_path().empty()) return "files";
  return {};
}

/// Two workers, and what the first attempts on its parent, its zygote and its sibling.
class two_workers {
 public:
  explicit two_workers(std::function<void()> initializer)
      : pool_(pool_options{.processes = 2, .initializer = std::move(initializer)}) {
    pool_.broadcast([words = words_.in_task()] { words[this_worker::index()] = ::getpid(); });
    words_[2] = ::getpid();
    words_[3] = status_of(words_[0])->parent;
  }

  process_pool<>& pool() { return pool_; }

  /// Of the attempts on these, in this order.
  std::vector<int> errors_of(int (*attempt)(pid_t)) {
    pool_.broadcast(
        [words = words_.in_task()](int (*to_try)(pid_t)) {
          if (this_worker::index() != 0) return;
          words[4] = to_try(words[2]);
          words[5] = to_try(words[3]);
          words[6] = to_try(words[1]);
        },
        attempt);
    return {words_.begin() + 4, words_.end()};
  }

 private:
  shared_words words_{7};  ///< the pids of both workers, the parent and the zygote, then three errors
  process_pool<> pool_;
};

/// A program that counts the signals that it gets while a task tries to send it two. `""` if as many came as should.
std::string signals_sent(std::function<void()> initializer, bool some_should_come) {
  return in_child([&] {
    static constinit std::atomic<int> caught{0};  // two threads may catch one each
    caught = 0;
    for (const int signal : {SIGUSR1, SIGUSR2}) ::signal(signal, [](int) { ++caught; });
    process_pool pool{pool_options{.processes = 1, .initializer = std::move(initializer)}};
    const bool set = pool.apply(
        [](pid_t parent) {
          ::kill(parent, SIGUSR1);
          // As the owner of a socket that becomes readable (fcntl(2), F_SETOWN).
          int ends[2];
          if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return false;
          const bool owned = ::fcntl(ends[0], F_SETOWN, parent) == 0 && ::fcntl(ends[0], F_SETSIG, SIGUSR2) == 0 &&
                             ::fcntl(ends[0], F_SETFL, O_ASYNC) == 0;
          return ::write(ends[1], "x", 1) == 1 && owned;
        },
        ::getpid());
    if (!some_should_come) return caught == 0 ? std::string() : std::string("a signal came");
    // One that was sent may come a little after the result.
    return set && eventually([] { return caught == 2; }) ? std::string() : "came: " + std::to_string(caught);
  });
}

}  // namespace

TEST_CASE("without hardening a worker reaches into its parent and its sibling", "[hardening]") {
  resources_unchanged guard;
  two_workers workers(std::function<void()>{});
  if (workers.errors_of(read_memory) != std::vector(3, 0)) {
    WARN("not run: this system forbids processes to read each other");
    return;
  }
  treasure = 4711;
  CHECK(workers.pool().apply(
            [](pid_t parent) {
              spoils = 4712;
              return write_memory(parent);
            },
            ::getpid()) == 0);
  CHECK(treasure == 4712);  // a task has changed the memory of this process
  for (const std::vector<way>* ways : {&into_memory, &by_signal}) {
    for (const way& each : *ways) {
      CAPTURE(each.name);
      CHECK(workers.errors_of(each.attempt) == std::vector(3, 0));
    }
  }
  CHECK(signals_sent({}, true) == "");
}

TEST_CASE("a hardened worker reaches into no other process", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(all_landlock_versions()));
  CAPTURE(version);
  two_workers workers(hardened_on(version));
  treasure = 4711;
  for (const way& each : into_memory) {
    CAPTURE(each.name);
    std::vector<int> errors = workers.errors_of(each.attempt);
    if (version == no_landlock && each.attempt == open_memory) {
      // A filter cannot forbid to open a file. Root's workers, who lose their capabilities, reach each other only.
      errors.resize(::geteuid() == 0 ? 2 : 0);
    }
    for (const int error : errors) CHECK(is_refusal(error));
  }
  CHECK(treasure == 4711);
}

TEST_CASE("a hardened worker sends signals to no other process", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(all_landlock_versions()));
  CAPTURE(version);
  two_workers workers(hardened_on(version));
  for (const way& each : by_signal) {
    CAPTURE(each.name);
    for (const int error : workers.errors_of(each.attempt)) CHECK(is_refusal(error));
  }
  CHECK(signals_sent(hardened_on(version), false) == "");
}

TEST_CASE("ordinary tasks work in a hardened worker", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(all_landlock_versions()));
  CAPTURE(version);
  process_pool pool{pool_options{.processes = 2, .initializer = hardened_on(version)}};
  CHECK(pool.apply(ordinary_task) == "");
  CHECK(pool.map(twice, std::views::iota(0, 1000)).back() == 1998);
  const std::string large(3'000'000, 'x');
  CHECK(pool.apply([](std::string text) { return text + text; }, large) == large + large);
  const auto array = pool.make_shared_array<int>(1000);
  pool.apply([](shared_array<int> to) { to[999] = 1; }, array);
  CHECK(array[999] == 1);
  CHECK(pool.apply([] { return make_shared_array<int>(1000); }).size() == 1000);
  CHECK_THROWS_AS(pool.apply([]() -> int { throw std::out_of_range("thrown"); }), std::out_of_range);
  CHECK(pool.apply([] {
    process_pool inner{2};
    return inner.apply(twice, 4);
  }) == 8);
  CHECK(pool.stats().workers[0].resident_bytes > 0);
  CHECK(pool.stats().workers_crashed == 0);
}

TEST_CASE("a hardened worker can end what it has started", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(all_landlock_versions()));
  CAPTURE(version);
  process_pool pool{pool_options{.processes = 1, .initializer = hardened_on(version)}};
  const int ended_by = pool.apply([]() -> int {
    ::signal(SIGTERM, SIG_IGN);
    const pid_t child = ::fork();
    if (child == 0) {
      ::signal(SIGTERM, SIG_DFL);
      for (;;) ::pause();
    }
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {  // it may not be ready for the first
      if (::kill(child, SIGTERM) != 0) ::kill(0, SIGTERM);
      ::usleep(1000);
    }
    return WTERMSIG(status);
  });
  CHECK(ended_by == SIGTERM);
}

TEST_CASE("a crash of a hardened worker costs one task, and its replacement is hardened too", "[hardening][crash]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const int version = GENERATE(from_range(all_landlock_versions()));
  CAPTURE(version);
  process_pool pool{pool_options{.processes = 1, .initializer = hardened_on(version)}};
  for (const death& way : all_deaths()) {
    CAPTURE(way.name);
    auto doomed = pool.apply_async(way.die);
    auto other = pool.apply_async(twice, 4);
    const auto crash = thrown_by<worker_crashed>([&] { doomed.get(); });
    CHECK(crash.signal() == way.signal);
    CHECK(crash.exit_status() == way.exit_status);
    CHECK(other.get() == 8);
    CHECK(is_refusal(pool.apply(write_memory, ::getpid())));
    CHECK(is_refusal(pool.apply(signal_process, ::getpid())));
  }
}

TEST_CASE("a hardened worker cannot administer the system nor get round its filter", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  struct call {
    const char* name;
    long number;
    long first;
    int error;
  };
  process_pool pool{pool_options{.processes = 1, .initializer = hardened()}};
  const std::vector<call> calls{
      {"bpf", SYS_bpf, 0, EPERM},
      {"userfaultfd", SYS_userfaultfd, 0, EPERM},
      {"perf_event_open", SYS_perf_event_open, 0, EPERM},
      {"keyctl", SYS_keyctl, 0, EPERM},
      {"add_key", SYS_add_key, 0, EPERM},
      {"io_uring_setup", detail::newer_calls::io_uring_setup, 1, EPERM},
      {"io_uring_enter", detail::newer_calls::io_uring_enter, -1, EPERM},
      {"mount", SYS_mount, 0, EPERM},
      {"umount2", SYS_umount2, 0, EPERM},
      {"pivot_root", SYS_pivot_root, 0, EPERM},
      {"chroot", SYS_chroot, 0, EPERM},
      {"open_tree", detail::newer_calls::open_tree, -1, EPERM},
      {"move_mount", detail::newer_calls::move_mount, -1, EPERM},
      {"fsopen", detail::newer_calls::fsopen, 0, EPERM},
      {"unshare", SYS_unshare, CLONE_NEWUSER, EPERM},
      {"setns", SYS_setns, -1, EPERM},
      {"clone into a namespace", SYS_clone, CLONE_NEWUSER | SIGCHLD, EPERM},
      {"clone3", detail::newer_calls::clone3, 0, ENOSYS},
      {"open_by_handle_at", SYS_open_by_handle_at, -1, EPERM},
      {"init_module", SYS_init_module, 0, EPERM},
      {"finit_module", SYS_finit_module, -1, EPERM},
      {"kexec_load", SYS_kexec_load, 0, EPERM},
      {"reboot", SYS_reboot, 0, EPERM},
      {"swapon", SYS_swapon, 0, EPERM},
      {"acct", SYS_acct, 0, EPERM},
      {"quotactl", SYS_quotactl, 0, EPERM},
      {"syslog", SYS_syslog, 10, EPERM},
      {"settimeofday", SYS_settimeofday, 0, EPERM},
      {"sethostname", SYS_sethostname, 0, EPERM},
      {"process_madvise", detail::newer_calls::process_madvise, -1, EPERM},
      {"process_mrelease", detail::newer_calls::process_mrelease, -1, EPERM},
#if defined(__x86_64__)
      {"iopl", SYS_iopl, 0, EPERM},
      {"a call by the numbers of x32", 0x40000000 | SYS_getpid, 0, ENOSYS},
#endif
  };
  for (const call& each : calls) {
    CAPTURE(each.name);
    CHECK(pool.apply([](long number, long first) { return error_of(::syscall(number, first, 0, 0, 0, 0, 0)); },
                     each.number, each.first) == each.error);
  }
  // The terminal's own check comes behind the filter's, and says ENOTTY of a file that is none.
  CHECK(pool.apply([] { return error_of(::ioctl(STDIN_FILENO, TIOCSTI, "x")); }) == EPERM);
  CHECK(pool.apply([] { return error_of(::ioctl(STDIN_FILENO, TIOCGWINSZ, nullptr)); }) == ENOTTY);
#if defined(__x86_64__)
  // A call by the numbers of i386, where 20 is getpid: it ends the process.
  const auto crash = thrown_by<worker_crashed>([&] {
    pool.apply([] {
      long result = 20;
      asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
      return result;
    });
  });
  CHECK(
      (crash.signal() == SIGSYS || crash.signal() == SIGSEGV));  // the second where the kernel has no such calls at all
#endif
}

TEST_CASE("a hardened worker has no capabilities and gains none", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const auto line = [](std::string file, std::string name) {
    std::ifstream status(file);
    for (std::string text; std::getline(status, text);) {
      if (text.starts_with(name + ":\t")) return text.substr(name.size() + 2);
    }
    return std::string("not there");
  };
  const auto of_pool = [&line](hardening_options options, std::string name) {
    process_pool pool{pool_options{.processes = 1, .initializer = hardened(std::move(options))}};
    return pool.apply(line, std::string("/proc/self/status"), name);
  };
  CHECK(of_pool({}, "CapEff") == "0000000000000000");
  CHECK(of_pool({}, "CapPrm") == "0000000000000000");
  CHECK(of_pool({.capabilities = true}, "CapEff") == line("/proc/self/status", "CapEff"));
  CHECK(of_pool({}, "NoNewPrivs") == "1");
  CHECK(of_pool({}, "Seccomp") == "2");
  // Nor by running a program as root.
  process_pool pool{pool_options{.processes = 1, .initializer = hardened()}};
  CHECK(pool.apply([] { return std::system("grep -q 'CapEff:.0000000000000000' /proc/self/status"); }) == 0);
}

TEST_CASE("hardened calls what it is given, in the hardened worker", "[hardening]") {
  if (!can_harden()) return;
  resources_unchanged guard;
  const shared_words told(1);
  const pid_t parent = ::getpid();
  process_pool pool{pool_options{.processes = 1, .initializer = hardened({}, [told = told.in_task(), parent] {
                                                   told[0] = is_refusal(signal_process(parent)) ? 1 : 2;
                                                 })}};
  CHECK(told[0] == 1);
}

TEST_CASE("harden_worker refuses to harden what is no worker", "[hardening]") {
  CHECK_THROWS_AS(harden_worker(), std::logic_error);
  CHECK_THROWS_AS(hardened({.cpu_time = 0s}), std::invalid_argument);
  CHECK_THROWS_AS(harden_worker({.cpu_time = -1s}), std::invalid_argument);
  CHECK_THROWS_AS((process_pool<in_process>{pool_options{.processes = 1, .initializer = hardened()}}.apply(twice, 4)),
                  procpool::error);
  process_pool<in_process> here{1};
  CHECK_THROWS_AS(here.apply([] { harden_worker(); }), remote_error);  // of not_supported
  process_pool pool{1};
  CHECK(pool.apply([] {
    const pid_t child = ::fork();
    if (child == 0) {
      try {
        harden_worker();
      } catch (const std::logic_error&) {
        ::_exit(3);
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WEXITSTATUS(status);
  }) == 3);
  const auto with_threads = [] {
    std::thread waiting([] { ::pause(); });
    try {
      harden_worker();
    } catch (const std::logic_error&) {
      waiting.detach();
      return 3;
    }
    waiting.detach();
    return 0;
  };
  CHECK(pool.apply(with_threads) == 3);
}

TEST_CASE("a kernel that lacks what hardening needs is an error, or goes without", "[hardening][restricted]") {
  resources_unchanged guard;
  struct lack {
    long call;
    const char* named;
  };
  const lack missing = GENERATE(values<lack>({{detail::landlock::create_ruleset_call, "landlock_create_ruleset"},
                                              {SYS_seccomp, "seccomp"},
                                              {SYS_capset, "capset"},
                                              {detail::landlock::restrict_self_call, "landlock_restrict_self"}}));
  CAPTURE(missing.named);
  const bool best_effort = GENERATE(false, true);
  const std::string said = in_child([=] {
    detail::seccomp_filter filter;
    filter.refuse(missing.call, ENOSYS);
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || !filter.install()) return std::string("no seccomp");
    try {
      process_pool pool{pool_options{.processes = 1, .initializer = hardened({.best_effort = best_effort})}};
      return pool.apply(twice, 4) == 8 ? std::string("works") : std::string("wrong result");
    } catch (const worker_start_error& failure) {
      return std::string(failure.what());
    }
  });
  if (best_effort && (missing.call == SYS_seccomp || missing.call == detail::landlock::create_ruleset_call)) {
    CHECK(said == "works");
  } else {
    CHECK_THAT(said, Catch::Contains(missing.named) && Catch::Contains(std::generic_category().message(ENOSYS)));
  }
}
