// SPDX-License-Identifier: BSL-1.0
// syscall_workload [parent|zygote|worker] [mappings]: the workload of the sweeps, in a program of its own. With an argument it waits,
// before the pool is made or once it is there, until whoever makes system calls fail in that process says that it does
// (SIGUSR1). Ends with 0 if every step ended well or in a documented error and nothing is left; says so in one line.
#include <signal.h>
#include <unistd.h>

#include <string>

#include "held.hpp"
#include "workload.hpp"

namespace {

constexpr unsigned longest = 12;  // seconds, after which SIGALRM says that the run hangs

void wait_for_tracer(pid_t of) {
  sweeps::say("target " + std::to_string(of) + "\n");
  sigset_t go;
  ::sigemptyset(&go);
  ::sigaddset(&go, SIGUSR1);
  ::sigwaitinfo(&go, nullptr);
}

}  // namespace

int main(int count, char** words) {
  const std::string target = count > 1 ? words[1] : "";
  const bool mappings_too = count < 3;  // what munmap fails on stays, whoever calls it
  ::alarm(longest);
  sigset_t go;
  ::sigemptyset(&go);
  ::sigaddset(&go, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &go, nullptr);
  sweeps::leak_check leaks;
  if (target == "parent") wait_for_tracer(::getpid());
  const sweeps::verdict result = sweeps::workload().run([&](procpool::process_pool<>& pool) {
    if (target == "zygote") wait_for_tracer(pool.apply([] { return ::getppid(); }));
    if (target == "worker") wait_for_tracer(pool.apply([] { return ::getpid(); }));
  });
  std::string wrong = result.wrong;
  if (const std::string left = leaks.left_behind(mappings_too); !left.empty()) {
    wrong += (wrong.empty() ? "left behind: " : "; left behind: ") + left;
  }
  sweeps::say((wrong.empty() ? "ok: " : "WRONG: " + wrong + "; ") + std::to_string(result.good) + " steps good, " +
              std::to_string(result.refused) + " refused" +
              (result.refused == 0 ? "" : std::string(", first ") + result.first_error) + "\n");
  return wrong.empty() ? 0 : 3;
}
