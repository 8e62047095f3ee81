// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <procpool/procpool.hpp>

#include "../support/processes.hpp"
#include "report.hpp"

namespace storms {

/// What the tasks of a tree do, so that it has something to lose.
struct tree_load {
  static int busy(int i) {
    const auto until = clock_type::now() + std::chrono::microseconds(i % 200);
    while (clock_type::now() < until) {
    }
    return i;
  }
  static int sleepy(int i) {
    std::this_thread::sleep_for(std::chrono::microseconds(i % 3000));
    return i;
  }
  static std::string large(int i) { return std::string(500'000 + static_cast<std::size_t>(i), 'x'); }
  static std::size_t array(int i) {
    const auto made = procpool::make_shared_array<char>(1'000'000);
    made[static_cast<std::size_t>(i) % made.size()] = 1;
    return made.size();
  }
  static int crash(int i) {
    if (i % 7 == 0) ::raise(SIGKILL);
    return i;
  }
  /// The worker has a child of its own, which would stay for ever.
  static int parent(int i) {
    if (i % 5 == 0 && ::fork() == 0) {
      for (;;) ::pause();
    }
    return sleepy(i);
  }
  /// The worker has a pool of its own.
  static int nest(int i) {
    procpool::process_pool<> pool{procpool::pool_options{.processes = 2, .name = "inner"}};
    return static_cast<int>(pool.map(sleepy, std::views::iota(i, i + 20)).size());
  }
};

/// Process trees, each a pool under load, whose application, zygote or both are killed at a random time: then every
/// process of the tree ends, soon. `--trees N`, `--seed`, `--longest` (seconds).
///
/// All processes of a tree have inherited the writing end of a pipe, also those that left the tree: its end of file
/// says that none of them is left.
class trees {
 public:
  explicit trees(const options& wanted)
      : count_(wanted.count("trees", 150)),
        seed_(wanted.count("seed", static_cast<std::uint64_t>(::getpid()))),
        longest_ms_(static_cast<int>(1000 * wanted.get("longest", 10))) {}

  int run() {
    const auto begin = clock_type::now();
    const auto names = support::names_in("/dev/shm");
    ::signal(SIGPIPE, SIG_IGN);
    for (std::uint64_t i = 0; i != count_ && found_.count() == 0; ++i) one(i);
    for (const std::string& name : support::names_in("/dev/shm")) {
      if (std::find(names.begin(), names.end(), name) == names.end() && name.find("procpool") != name.npos)
        found_.add("left in /dev/shm: ", name);
    }
    std::uint64_t done = 0;
    for (const auto& each : times_) done += each.size();
    std::printf("trees: %llu, of %.1f processes each", number(done),
                static_cast<double>(processes_) / static_cast<double>(std::max<std::uint64_t>(counted_, 1)));
    for (std::size_t kind = 0; kind != times_.size(); ++kind) {
      std::printf("; %zu with %s killed, gone after %.1f ms (median), %.1f ms (99%%), %.1f ms (longest)",
                  times_[kind].size(), target_names[kind], quantile(kind, 0.5), quantile(kind, 0.99),
                  quantile(kind, 1.0));
    }
    std::printf("; %llu violations; seed %llu, %.1f s\n", number(found_.count()), number(seed_), seconds_since(begin));
    return found_.count() == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
  }

 private:
  enum class target { application, zygote, both };
  static constexpr std::array target_names{"the application", "the zygote", "both"};

  static unsigned long long number(std::uint64_t n) { return n; }

  double quantile(std::size_t kind, double part) {
    auto& all = times_[kind];
    if (all.empty()) return 0;
    std::sort(all.begin(), all.end());
    return all[static_cast<std::size_t>(part * static_cast<double>(all.size() - 1))];
  }

  struct pipe_ends {
    int reading = -1;
    int writing = -1;
  };
  static pipe_ends make_pipe(int flags) {
    int ends[2];
    if (::pipe2(ends, flags) != 0) std::abort();
    return {ends[0], ends[1]};
  }

  void one(std::uint64_t i) {
    dice random(mix(seed_) + i);
    const auto what = static_cast<target>(random.below(3));
    const std::string name = "t" + std::to_string(i);
    // A worker's own children go with it when the zygote kills it, or when the application finds the zygote gone and
    // can kill their group; with both gone nobody is left to do so.
    const bool families = what == target::application || (what == target::zygote && kills_groups());

    const pipe_ends life = make_pipe(0);
    const pipe_ends orders = make_pipe(O_CLOEXEC);
    const pipe_ends signs = make_pipe(O_CLOEXEC);
    const pid_t root = ::fork();
    if (root < 0) std::abort();
    if (root == 0) {
      ::close(life.reading);
      ::close(orders.writing);
      ::close(signs.reading);
      live(random, name, families, orders.reading, signs.writing);
    }
    ::close(life.writing);
    ::close(orders.reading);
    ::close(signs.writing);

    if (!random.one_in(4)) await(signs.reading);  // the first results; else it may be killed while it starts
    std::this_thread::sleep_for(std::chrono::microseconds(random.below(15'000)));
    if (i % 10 == 0) {
      processes_ += count_of(life.reading);
      ++counted_;
    }
    const int zygote = what == target::application ? -1 : open_zygote(name, root);

    const auto killed = clock_type::now();
    if (zygote >= 0) ::syscall(SYS_pidfd_send_signal, zygote, SIGKILL, nullptr, 0);
    if (what != target::zygote) ::kill(root, SIGKILL);
    if (zygote >= 0) ::close(zygote);
    // A pool that a spare zygote serves goes on until it is told to end; without one it has ended.
    [[maybe_unused]] const auto written = ::write(orders.writing, "e", 1);

    const bool gone = await(life.reading);
    times_[static_cast<std::size_t>(what)].push_back(1000 * seconds_since(killed));
    if (!gone) survivors(i, what, life.reading);
    int status = 0;
    ::waitpid(root, &status, 0);
    if (what == target::zygote && gone && (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_SUCCESS))
      found_.add("tree ", i, ": the application ended with status ", status, " when its zygote was killed");
    for (const int fd : {life.reading, orders.writing, signs.reading}) ::close(fd);
  }

  /// Whether the kernel can kill a process group without its number (pidfd_send_signal(2), Linux 6.9).
  static bool kills_groups() {
    constexpr unsigned process_group = 1u << 2;
    static const bool known = [] {
      const int self = static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0));
      const bool failed = ::syscall(SYS_pidfd_send_signal, self, 0, nullptr, process_group) != 0 && errno == EINVAL;
      ::close(self);
      return !failed;
    }();
    return known;
  }

  /// True once the pipe can be read, or is at its end.
  bool await(int reading) const {
    pollfd waiting{reading, POLLIN, 0};
    return ::poll(&waiting, 1, longest_ms_) == 1;
  }

  // ---- the application of a tree ----------------------------------------------------------------------------------

  [[noreturn]] static void live(dice random, const std::string& name, bool families, int orders, int signs) {
    using load = int (*)(int);
    ::fcntl(orders, F_SETFL, O_NONBLOCK);
    const auto ordered_to_end = [&] {
      char order;
      return ::read(orders, &order, 1) == 1;
    };
    bool ended = false;
    while (!ended) {
      try {
        procpool::process_pool<> pool{
            procpool::pool_options{.processes = 1 + static_cast<int>(random.below(4)), .name = name}};
        const bool once = random.one_in(4);
        do {
          load loads[] = {tree_load::busy, tree_load::sleepy, tree_load::crash, tree_load::nest, tree_load::parent};
          const load what = loads[random.below(families ? 5 : 4)];
          auto some = pool.map_async(what, std::views::iota(0, 40), 1 + random.below(10));
          auto large = pool.apply_async(tree_load::large, 1);
          auto array = pool.apply_async(tree_load::array, 1);
          pool.try_map(tree_load::sleepy, std::views::iota(0, 20), 1);
          if (::write(signs, "s", 1) != 1) ended = true;
          some.wait();
          large.wait();
          array.wait();
          ended = ended || ordered_to_end();
        } while (!once && !ended);
        if (random.one_in(3)) pool.terminate();
      } catch (const procpool::pool_broken&) {
        ended = true;  // its zygote is gone
      } catch (const procpool::worker_start_error&) {
        ended = true;
      } catch (const std::exception& failure) {
        std::printf("VIOLATION: a call failed: %s\n", failure.what());
        std::fflush(stdout);
        ::_exit(4);
      }
    }
    ::_exit(EXIT_SUCCESS);
  }

  // ---- looking at a tree from outside -----------------------------------------------------------------------------

  /// A descriptor of the zygote's process. One pool after the other is made, so for moments there is none.
  int open_zygote(const std::string& name, pid_t root) const {
    const std::string wanted = name + "/zygote";
    for (const auto until = clock_type::now() + std::chrono::milliseconds(longest_ms_); clock_type::now() < until;) {
      for (const auto& each : support::all_processes()) {
        if (each.name != wanted) continue;
        const int process = static_cast<int>(::syscall(SYS_pidfd_open, each.pid, 0));
        const auto now = support::status_of(each.pid);  // the number may be someone else's by now
        if (process >= 0 && now && now->name == wanted) return process;
        if (process >= 0) ::close(process);
      }
    }
    ::kill(root, SIGKILL);
    std::printf("VIOLATION: %s has no zygote\n", name.c_str());
    std::fflush(stdout);
    std::exit(EXIT_FAILURE);
  }

  /// The processes that hold the other end of the pipe.
  static std::vector<support::process_status> holders(int reading) {
    const std::string wanted = link_of("/proc/self/fd/" + std::to_string(reading));
    std::vector<support::process_status> found;
    for (auto& each : support::all_processes()) {
      if (each.pid == ::getpid()) continue;
      const std::string fds = "/proc/" + std::to_string(each.pid) + "/fd";
      for (const std::string& fd : support::names_in(fds)) {
        if (link_of(fds + "/" + fd) != wanted) continue;
        found.push_back(std::move(each));
        break;
      }
    }
    return found;
  }
  static std::uint64_t count_of(int reading) { return holders(reading).size(); }
  static std::string link_of(const std::string& path) {
    std::array<char, 256> target{};
    const ssize_t size = ::readlink(path.c_str(), target.data(), target.size());
    return size < 0 ? std::string() : std::string(target.data(), static_cast<std::size_t>(size));
  }

  void survivors(std::uint64_t i, target what, int reading) {
    std::string text;
    for (int again = 0; again != 5; ++again) {  // some may be starting others
      for (const auto& each : holders(reading)) {
        if (again == 0) text += " " + each.name + "(" + std::to_string(each.pid) + ", " + each.state + ")";
        ::kill(each.pid, SIGKILL);
      }
    }
    found_.add("tree ", i, ": survivors after the end of ", target_names[static_cast<std::size_t>(what)], ":", text);
  }

  const std::uint64_t count_, seed_;
  const int longest_ms_;
  violations found_;
  std::uint64_t processes_ = 0, counted_ = 0;
  std::array<std::vector<double>, 3> times_{};  ///< milliseconds from the kill to the last process's end
};

}  // namespace storms
