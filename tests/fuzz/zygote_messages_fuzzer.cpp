// SPDX-License-Identifier: BSL-1.0
// What goes over the socket between parent and zygote, and over that of a lane, when either end says anything at all:
// messages of any size and content, with and without descriptors, in any order.
//
// To the parent: forked_workers as it is, whose zygote is this program. The fork of the zygote is replaced, and the
// other end of its socket kept. What the parent hands on must be what was said, for lanes that exist, and nothing else.
// To the zygote: zygote_process::obey() and reap() as they are, over processes that fork(), kill() and wait4() below
// only pretend. It may kill no process that it did not start, or that it has reaped, and tells of each end once.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include <procpool/detail/shared_memory/forked_workers.hpp>

#include "support/input.hpp"

using namespace procpool::detail;
using fuzz::require;

namespace {

// ---- processes that are only pretended -----------------------------------------------------------------------------

constexpr pid_t first_pretended = 0x40000000;  // above what the kernel gives out

struct pretended_system {
  bool on = false;  ///< else the calls below go to the kernel
  fuzz::input* in = nullptr;
  pid_t next = first_pretended;
  std::map<pid_t, bool> processes;  ///< those that are not reaped; whether they have ended
} pretended;

/// While forked_workers is made: the next pair of sockets is the zygote's, whose end is kept, and the next fork makes
/// none.
bool replacing_zygote = false;
int kept_end = -1;

}  // namespace

extern "C" {

pid_t fork() {
  if (pretended.on) {
    if (pretended.in->below(4) == 0) {
      errno = EAGAIN;
      return -1;
    }
    pretended.processes[pretended.next] = false;
    return pretended.next++;
  }
  if (replacing_zygote) return first_pretended;
  return static_cast<pid_t>(::syscall(SYS_fork));
}

int kill(pid_t pid, int signal) {
  if (!pretended.on) return static_cast<int>(::syscall(SYS_kill, pid, signal));
  require(pid != 0 && pid != -1, "a signal to everybody");
  const auto found = pretended.processes.find(pid < 0 ? -pid : pid);
  require(found != pretended.processes.end(), "a signal to a stranger");
  require(signal == SIGKILL, "another signal than SIGKILL");
  if (pid > 0) found->second = true;
  return 0;
}

int setpgid(pid_t pid, pid_t group) {
  if (!pretended.on) return static_cast<int>(::syscall(SYS_setpgid, pid, group));
  return 0;
}

int waitid(idtype_t type, id_t id, siginfo_t* info, int options) {
  if (!pretended.on) return static_cast<int>(::syscall(SYS_waitid, type, id, info, options, nullptr));
  if (pretended.processes.empty()) {
    errno = ECHILD;
    return -1;
  }
  info->si_pid = 0;
  for (const auto& [pid, ended] : pretended.processes) {
    if (ended) info->si_pid = pid;
  }
  return 0;
}

pid_t wait4(pid_t pid, int* status, int options, struct rusage* usage) {
  if (!pretended.on) return static_cast<pid_t>(::syscall(SYS_wait4, pid, status, options, usage));
  const auto found = pretended.processes.find(pid);
  require(found != pretended.processes.end() && found->second, "to wait for a process that has not ended");
  pretended.processes.erase(found);
  *status = SIGKILL;
  usage->ru_maxrss = 1;
  return pid;
}

int socketpair(int domain, int type, int protocol, int* ends) {
  const auto result = static_cast<int>(::syscall(SYS_socketpair, domain, type, protocol, ends));
  if (result == 0 && replacing_zygote) {
    kept_end = ::fcntl(ends[1], F_DUPFD_CLOEXEC, 100);
    zygote_event hello{};
    hello.news = zygote_news::alive;
    hello.pid = first_pretended;
    send_message(kept_end, hello);
  }
  return result;
}

}  // extern "C"

namespace {

constexpr std::size_t lanes = 3;

/// Sends `size` bytes, the first of which are those of `message`, with descriptors beside it.
template <class Message>
void send_any(int socket, const Message& message, std::size_t size, std::span<const int> fds) {
  std::byte bytes[2 * sizeof(Message)]{};
  std::memcpy(bytes, &message, sizeof(message));
  iovec part{bytes, std::min(size, sizeof(bytes))};
  alignas(cmsghdr) char control[CMSG_SPACE(8 * sizeof(int))]{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  if (!fds.empty()) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const beside = CMSG_FIRSTHDR(&header);
    beside->cmsg_level = SOL_SOCKET;
    beside->cmsg_type = SCM_RIGHTS;
    beside->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(beside), fds.data(), fds.size_bytes());
  }
  require(::sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0, "a message could not be sent");
}

/// Most messages have the size that they should have.
template <class Message>
std::size_t any_size(fuzz::input& in) {
  const std::uint32_t how = in.below(8);
  return how < 6 ? sizeof(Message) : how == 6 ? 1 + in.below(sizeof(Message) - 1) : sizeof(Message) + in.below(8);
}

/// The lowest descriptor that is free: the same before and after an input, or one has leaked or been closed.
int lowest_free() {
  const int fd = ::fcntl(0, F_DUPFD_CLOEXEC, 3);
  ::close(fd);
  return fd;
}

// ---- to the parent -------------------------------------------------------------------------------------------------

struct heard {
  enum { started, refused, ended, hung_up, lost } what;
  std::size_t lane;
  std::uint64_t generation;
  std::int64_t detail;
  friend bool operator==(const heard&, const heard&) = default;
};

struct handler {
  std::vector<heard> all;
  void started(std::size_t lane, std::uint64_t generation, pid_t pid) {
    all.push_back({heard::started, lane, generation, pid});
  }
  void refused(std::size_t lane, std::uint64_t generation, int error) {
    all.push_back({heard::refused, lane, generation, error});
  }
  void ended(std::size_t lane, std::uint64_t generation, const worker_end& end) {
    all.push_back({heard::ended, lane, generation, end.status});
    static_cast<void>(end.text());
  }
  void hung_up(std::size_t lane) { all.push_back({heard::hung_up, lane, 0, 0}); }
  void vanished(std::size_t lane) { all.push_back({heard::hung_up, lane, 0, 0}); }
  void orphaned() { require(false, "the zygote is taken to be gone"); }
  void lost() { require(false, "the zygote is taken to be gone"); }
};

class parent_side {
 public:
  parent_side() {
    replacing_zygote = false;
    for (std::size_t i = 0; i != lanes; ++i) spawn(i);
  }

  void run(fuzz::input& in) {
    std::vector<heard> expected;
    handler to;
    for (int n = 0; !in.empty() && n != 16; ++n) {
      if (in.below(4) == 0) {
        const std::size_t lane = in.below(lanes);
        const attachment_message said{in.odd_number(3)};
        const int fds[] = {1, 2};
        send_any(worker_ends_[lane].get(), said, any_size<attachment_message>(in), std::span(fds, in.below(3)));
        continue;
      }
      zygote_event event{};
      event.news = static_cast<zygote_news>(in.below(8) == 0 ? in.odd_number(4) : in.below(5));
      event.lane = static_cast<std::uint32_t>(in.below(4) == 0 ? in.odd_number(lanes) : in.below(lanes));
      event.generation = in.odd_number(2);
      // Of no process there is: the parent would hold a descriptor of it.
      event.pid = -1 - static_cast<std::int32_t>(in.odd_number(1000) & 0x7fff'fffe);
      event.status = static_cast<std::int32_t>(in.odd_number(9));
      event.error = static_cast<std::int32_t>(in.odd_number(12));
      const std::size_t size = any_size<zygote_event>(in);
      const int fds[] = {1, 2, 1};
      send_any(zygote_end_, event, size, std::span(fds, in.below(4)));
      if (size == sizeof(event) && event.lane < lanes) expect(event, expected);
    }
    hear(to);
    std::erase_if(to.all, [](const heard& each) { return each.what == heard::hung_up; });
    require(to.all == expected, "what was heard is not what was said");
    for (std::size_t i = 0; i != lanes; ++i) {
      workers_.at(i).inbox().discard(~std::uint64_t{0});  // the descriptors that came over its socket
    }
  }

 private:
  static engine_setup three_workers() {
    engine_setup setup;
    setup.processes = static_cast<int>(lanes);
    setup.name = "fuzz";
    replacing_zygote = true;
    return setup;
  }

  static void expect(const zygote_event& event, std::vector<heard>& expected) {
    switch (static_cast<std::uint32_t>(event.news)) {
      case 2:
        expected.push_back({heard::started, event.lane, event.generation, event.pid});
        break;
      case 3:
        expected.push_back({heard::refused, event.lane, event.generation, event.error});
        break;
      case 4:
        expected.push_back({heard::ended, event.lane, event.generation, event.status});
        break;
      default:
        break;
    }
  }

  void hear(handler& to) {
    // All lanes and the zygote are looked at in one go, unless more has happened than one call tells of.
    for (int i = 0; i != 2; ++i) {
      workers_.sleep(steady_time());
      workers_.handle(to);
    }
  }

  void spawn(std::size_t lane) {
    workers_.spawn(lane, 0);
    zygote_request request{};
    unique_fd socket;
    require(receive_message(zygote_end_, request, [&](unique_fd fd) { socket = std::move(fd); }) == received::message,
            "a request to start a worker was not sent");
    require(request.order == zygote_order::spawn && request.lane == lane && socket, "another request was sent");
    worker_ends_[lane] = std::move(socket);
  }

  forked_workers workers_{three_workers()};
  const int zygote_end_ = kept_end;
  unique_fd worker_ends_[lanes];
};

// ---- to the zygote -------------------------------------------------------------------------------------------------

/// What the zygote does for ever, once: its members are private. That an explicit instantiation may name them is what
/// [temp.spec] is for.
template <class Of, typename Of::type Member>
struct revealed {
  friend typename Of::type member_of(Of) { return Member; }
};
struct obey_member {
  using type = bool (zygote_process::*)() noexcept;
  friend type member_of(obey_member);
};
struct reap_member {
  using type = void (zygote_process::*)() noexcept;
  friend type member_of(reap_member);
};
struct prepared_member {
  using type = bool zygote_process::*;
  friend type member_of(prepared_member);
};
template struct revealed<obey_member, &zygote_process::obey>;
template struct revealed<reap_member, &zygote_process::reap>;
template struct revealed<prepared_member, &zygote_process::prepared_>;

class zygote_side {
 public:
  zygote_side() : ends_(make_message_sockets()) { setup_.processes = static_cast<int>(lanes); }

  void run(fuzz::input& in) {
    pretended = {true, &in, first_pretended, {}};
    zygote_process zygote(worker_plan{setup_, region_, bells_}, ends_.second.get(), -1);
    zygote.*member_of(prepared_member()) = true;  // this process needs its signal handlers
    for (int n = 0; !in.empty() && n != 24; ++n) {
      switch (in.below(4)) {
        case 0:
          end_one(in);
          (zygote.*member_of(reap_member()))();
          break;
        default:
          request(in);
          require((zygote.*member_of(obey_member()))(), "the parent is taken to be gone");
      }
    }
    for (auto& [pid, ended] : pretended.processes) ended = true;
    (zygote.*member_of(reap_member()))();
    hear();
    require(pretended.processes.empty(), "a process was not reaped");
    pretended.on = false;
  }

 private:
  struct worker {
    std::uint32_t lane;
    std::uint64_t generation;
  };

  void request(fuzz::input& in) {
    zygote_request what{};
    what.order = static_cast<zygote_order>(in.below(8) == 0 ? in.odd_number(3) : 1 + in.below(3));
    what.lane = static_cast<std::uint32_t>(in.below(8) == 0 ? in.odd_number(lanes) : in.below(lanes));
    what.generation = in.below(8) == 0 ? in.odd_number(1) : in.below(2);
    const int fds[] = {1, 2, 1};
    send_any(ends_.first.get(), what, any_size<zygote_request>(in), std::span(fds, in.below(4)));
  }

  static void end_one(fuzz::input& in) {
    if (pretended.processes.empty()) return;
    auto which = pretended.processes.begin();
    std::advance(which, in.below(static_cast<std::uint32_t>(pretended.processes.size())));
    which->second = true;
  }

  /// All that the zygote has told of, in the order in which it did.
  void hear() {
    std::map<pid_t, worker> started;
    zygote_event event{};
    while (receive_message(ends_.first.get(), event, [](unique_fd) {}) == received::message) {
      switch (event.news) {
        case zygote_news::started:
          require(event.lane < lanes && event.pid >= first_pretended, "a worker was started where there is no lane");
          require(started.emplace(event.pid, worker{event.lane, event.generation}).second,
                  "a worker was started twice");
          break;
        case zygote_news::ended: {
          const auto found = started.find(event.pid);
          require(found != started.end(), "a worker has ended that had not started, or ended before");
          require(found->second.lane == event.lane && found->second.generation == event.generation,
                  "another worker has ended than is said");
          started.erase(found);
          break;
        }
        default:
          // No process, or no descriptor of the worker's socket.
          require(event.news == zygote_news::refused && (event.error == EAGAIN || event.error == EMFILE),
                  "news of no kind");
      }
    }
  }

  engine_setup setup_;
  shared_region region_{lanes};
  worker_bells bells_;
  std::pair<unique_fd, unique_fd> ends_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Never destroyed: the first would wait for its zygote.
  static parent_side& parent = *new parent_side;
  static zygote_side& zygote = *new zygote_side;
  fuzz::input in(data, size);
  const int before = lowest_free();
  in.below(2) == 0 ? parent.run(in) : zygote.run(in);
  require(lowest_free() == before, "a descriptor was kept, or closed");
  return 0;
}
