// SPDX-License-Identifier: BSL-1.0
// refusing ERROR CALL... -- PROGRAM ARGUMENT...: runs the program where the kernel, or a container's profile, answers
// these system calls with ERROR, for as long as it runs and in every process that it forks (seccomp(2)).
// `madvise-populate` is madvise(2) with MADV_POPULATE_WRITE alone, `futex-wait` futex(2) where it waits.
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace {

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

/// What a filter looks at: the number of the call, and one of its arguments where not every use is refused.
struct call {
  long number;
  std::optional<std::uint32_t> argument{};
  std::vector<std::uint32_t> values{};
};

const std::map<std::string, call> known_calls = {
    {"pidfd_open", {SYS_pidfd_open}},
    {"pidfd_send_signal", {SYS_pidfd_send_signal}},
    {"pidfd_getfd", {SYS_pidfd_getfd}},
    {"close_range", {SYS_close_range}},
    {"memfd_create", {SYS_memfd_create}},
    {"mseal", {SYS_mseal}},
    {"clone3", {SYS_clone3}},
    {"madvise-populate", {SYS_madvise, 2, {23}}},
    {"futex-wait",
     {SYS_futex,
      1,
      {FUTEX_WAIT, FUTEX_WAIT_PRIVATE, FUTEX_WAIT_BITSET, FUTEX_WAIT_BITSET_PRIVATE,
       FUTEX_WAIT_BITSET_PRIVATE | FUTEX_CLOCK_REALTIME}}},
};
const std::map<std::string, int> known_errors = {{"ENOSYS", ENOSYS}, {"EPERM", EPERM},        {"EINTR", EINTR},
                                                 {"EAGAIN", EAGAIN}, {"ENOMEM", ENOMEM},      {"EFAULT", EFAULT},
                                                 {"EINVAL", EINVAL}, {"EHWPOISON", EHWPOISON}};

constexpr std::uint16_t operation(int code) { return static_cast<std::uint16_t>(code); }

/// Allows it all but what is refused; every comparison that fits jumps to the refusal, which stands last.
std::vector<sock_filter> filter_of(const std::vector<call>& refused, int error) {
  std::vector<sock_filter> program;
  const auto load = [&](std::size_t offset) {
    program.push_back({operation(BPF_LD | BPF_W | BPF_ABS), 0, 0, static_cast<std::uint32_t>(offset)});
  };
  const auto answer = [&](std::uint32_t what) { program.push_back({operation(BPF_RET | BPF_K), 0, 0, what}); };
  for (const call& each : refused) {
    load(offsetof(seccomp_data, nr));
    const std::size_t count = each.values.size();
    const std::size_t length = each.argument ? 1 + 2 * count : 1;
    program.push_back({operation(BPF_JMP | BPF_JEQ | BPF_K), 0, static_cast<std::uint8_t>(length),
                       static_cast<std::uint32_t>(each.number)});
    if (each.argument) load(offsetof(seccomp_data, args) + *each.argument * sizeof(std::uint64_t));
    for (const std::uint32_t value : each.values) {
      program.push_back({operation(BPF_JMP | BPF_JEQ | BPF_K), 0, 1, value});
      answer(SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error));
    }
    if (!each.argument) answer(SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(error));
  }
  answer(SECCOMP_RET_ALLOW);
  return program;
}

int complain(const std::string& what) {
  std::fprintf(stderr, "refusing: %s\n", what.c_str());
  return 125;
}

}  // namespace

int main(int count, char** words) {
  if (count < 2 || !known_errors.contains(words[1])) return complain("no such error");
  std::vector<call> refused;
  int at = 2;
  for (; at < count && std::strcmp(words[at], "--") != 0; ++at) {
    if (!known_calls.contains(words[at])) return complain(std::string("no such call: ") + words[at]);
    refused.push_back(known_calls.at(words[at]));
  }
  if (at + 1 >= count) return complain("no program");
  std::vector<sock_filter> program = filter_of(refused, known_errors.at(words[1]));
  const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
    return complain("this system has no seccomp filters");
  ::execv(words[at + 1], words + at + 1);
  return complain(std::string("exec: ") + std::strerror(errno));
}
