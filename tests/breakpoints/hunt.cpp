// SPDX-License-Identifier: BSL-1.0
#include "hunt.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "workloads.hpp"

namespace breakpoints {
namespace {

using namespace std::chrono_literals;

constexpr auto longest_round = 30s;
constexpr auto longest_end = 2s;  ///< from the death of the application until nothing of it is left

/// The application: a round of the workload for each byte that comes, a byte back after it; until the line is closed.
[[noreturn]] void run_application(const std::string& name, board& shared, int line, bool once) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  ::sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  char byte = 0;
  try {
    if (::read(line, &byte, 1) != 1) ::_exit(EXIT_FAILURE);
    {
      auto what = make_workload(name, shared);
      do {
        what->run();
        if (::write(line, &byte, 1) != 1) break;
      } while (!once && ::read(line, &byte, 1) == 1);
    }
    ::_exit(EXIT_SUCCESS);
  } catch (const std::exception& failure) {
    std::snprintf(shared.complaint, sizeof(shared.complaint), "the round was given up: %s", failure.what());
  }
  ::_exit(EXIT_FAILURE);
}

}  // namespace

hunt::hunt(const code& text, role prey, std::string workload)
    : text_(text), prey_(prey), workload_(std::move(workload)), shared_(*board::make()), tracer_(text) {
  tracer_.born = [this](tracee& newborn) { return born(newborn); };
  tracer_.hit = [this](tracee& who, address at) { hit(who, at); };
  tracer_.stepped = [this](tracee& who) { fire(who); };
  planted_ = everywhere_ = text.planted_text();
}

hunt::~hunt() { stop(); }

// ---- rounds ---------------------------------------------------------------------------------------------------------

void hunt::start() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0) std::abort();  // what the pool forks inherits theirs
  ::fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  std::fflush(nullptr);
  application_ = ::fork();
  if (application_ < 0) throw std::runtime_error("breakpoints: fork failed");
  if (application_ == 0) {
    ::close(ends[0]);
    run_application(workload_, shared_, ends[1], prey_ == role::application);
  }
  ::close(ends[1]);
  line_ = ends[0];
  tracer_.follow(application_);
}

void hunt::stop() {
  if (application_ < 0) return;
  tracer_.kill_all();
  ::close(line_);
  application_ = -1;
  line_ = -1;
}

/// What the application has left behind, and is not traced: its pools are named after this process.
void hunt::kill_stragglers() {
  const std::string name = "b" + std::to_string(::getpid()) + "/";
  std::error_code ignored;
  for (const auto& each : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string number = each.path().filename();
    std::ifstream file(each.path() / "comm");
    std::string text;
    if (std::getline(file, text) && text.starts_with(name)) ::kill(std::stoi(number), SIGKILL);
  }
}

bool hunt::round() {
  shared_.killed_at = 0;
  killed_ = false;
  hits_ = 0;
  ++tally_.rounds;
  const bool ended = prey_ == role::application ? round_of_mortal_application() : round_of_live_application();
  doing_ = doing::nothing;
  if (!ended) {
    stop();
    kill_stragglers();
  }
  return ended;
}

bool hunt::round_of_live_application() {
  if (application_ < 0) {
    start();
    // The first round makes the pool: without it, there is no prey yet.
    const doing later = std::exchange(doing_, doing::nothing);
    if (!round_of_live_application()) return false;
    doing_ = later;
  }
  shared_.clear();
  tracer_.for_each(prey_, [this](tracee& each) { plant(each); });
  const char byte = 'r';
  if (::write(line_, &byte, 1) != 1 || !tracer_.wait(line_, longest_round)) {
    complain("the round did not end");
    return false;
  }
  tracer_.stop_stepping();
  tracer_.for_each(prey_, [this](tracee& each) { clean(each); });
  char answer = 0;
  if (::read(line_, &answer, 1) != 1) {
    complain(shared_.complaint[0] != '\0' ? shared_.complaint : "the application died");
    return false;
  }
  judge();
  return true;
}

bool hunt::round_of_mortal_application() {
  start();
  std::snprintf(shared_.complaint, sizeof(shared_.complaint), "the application died");
  tracer_.for_each(role::application, [this](tracee& each) { plant(each); });
  const char byte = 'r';
  if (::write(line_, &byte, 1) != 1) throw std::runtime_error("breakpoints: no application");
  // The line is readable when the round has ended, or when the application and all that it forked are gone.
  const auto patience = std::chrono::steady_clock::now() + longest_round;
  for (;;) {
    const bool readable = tracer_.wait(line_, 10ms);
    if (killed_) tracer_.free_orphans();
    char answer = 0;
    if (readable && ::read(line_, &answer, 1) <= 0) break;  // none is left
    if (killed_ && now_ns() - shared_.killed_at > std::chrono::nanoseconds(longest_end).count()) {
      complain("a process is left 2 s after the end of the application");
      return false;
    }
    if (std::chrono::steady_clock::now() > patience) {
      complain("the round did not end");
      return false;
    }
  }
  if (killed_) {
    tally_.gone_ns = std::max(tally_.gone_ns, now_ns() - shared_.killed_at);
    shared_.complaint[0] = '\0';
  } else {
    judge();
  }
  stop();
  return true;
}

void hunt::judge() {
  std::string complaint = shared_.complaint;
  const int most_crashed = !killed_ || nothing_ran() ? 0 : prey_ == role::zygote ? pool_size : 1;
  const bool may_break = killed_ && (prey_ == role::zygote || workload_ == "life");
  if (complaint.empty() && shared_.crashed > most_crashed)
    complaint = std::to_string(shared_.crashed) + " tasks crashed, at most " + std::to_string(most_crashed) + " ran";
  if (complaint.empty() && shared_.broken > 0 && !may_break) complaint = "the pool is broken";
  if (!complaint.empty()) complain(complaint);
  if (!killed_) return;
  if (shared_.back_ns > 0) tally_.back_ns.push_back(shared_.back_ns);
  tally_.longest_ns = std::max(tally_.longest_ns, shared_.longest_ns);
  tally_.gone_ns = std::max(tally_.gone_ns, shared_.gone_ns);
}

/// Whether the worker was killed where it runs no task: the last one is published, the next is not claimed.
bool hunt::nothing_ran() const {
  if (prey_ != role::worker || shot_.beyond != 0) return false;
  const std::string name = text_.name(killed_at_);
  return name.find("doorbell4ring") != std::string::npos || name.find("worker_loop8wait_for") != std::string::npos;
}

void hunt::complain(const std::string& what) {
  ++tally_.bad;
  std::printf("bad: %s\n", what.c_str());
  if (shared_.crash[0] != '\0') std::printf("     %s\n", shared_.crash);
  if (killed_) {
    std::printf("     killed at %s", text_.name(killed_at_).c_str());
  } else {
    std::printf("     not killed at %s", shot_.at.empty() ? "any place" : text_.name(*shot_.at.begin()).c_str());
  }
  std::printf(", hit %u of %u, %u steps beyond\n", hits_, shot_.hit, shot_.beyond);
  std::fflush(stdout);
}

// ---- exploring and shooting -----------------------------------------------------------------------------------------

std::set<address> hunt::explore() {
  constexpr int enough = 10;
  for (int barren = 0; barren != enough;) {
    const std::size_t before = found_.size();
    doing_ = doing::exploring;
    if (!round()) break;
    barren = found_.size() == before ? barren + 1 : 0;
  }
  return found_;
}

hunt::result hunt::shoot(const shot& where) {
  shot_ = where;
  doing_ = doing::shooting;
  round();
  if (killed_) ++tally_.kills;
  return {killed_, killed_at_, hits_};
}

void hunt::renew_worker() {
  bool done = false;
  tracer_.for_each(role::worker, [&](tracee& each) {
    if (!std::exchange(done, true)) tracer_.kill(each);
  });
}

void hunt::plant(tracee& who) {
  who.hits = 0;
  if (doing_ == doing::exploring) who.memory->write(text_.begin(), planted_.data(), planted_.size());
  if (doing_ == doing::shooting && !killed_) {
    if (shot_.slowly) who.memory->write(text_.begin(), everywhere_.data(), everywhere_.size());
    for (const address at : shot_.at) who.memory->plant(at);
  }
}

void hunt::clean(tracee& who) {
  if (doing_ == doing::exploring || shot_.slowly) who.memory->restore_all(text_);
  if (doing_ == doing::shooting) {
    for (const address at : shot_.at) who.memory->restore(text_, at);
  }
}

birth hunt::born(tracee& newborn) {
  switch (newborn.what) {
    case role::zygote:
      if (prey_ == role::application) {
        clean(newborn);
        return birth::free;
      }
      if (prey_ == role::zygote) plant(newborn);
      return birth::go;
    case role::worker:
      if (prey_ == role::worker) {
        plant(newborn);
        return birth::go;
      }
      // A worker that comes to run only when the zygote is dead must see that.
      clean(newborn);
      return doing_ == doing::shooting && !killed_ ? birth::hold : birth::go;
    default:
      clean(newborn);
      return birth::free;
  }
}

void hunt::hit(tracee& who, address at) {
  const bool awaited = doing_ == doing::shooting && !killed_ && shot_.at.contains(at) && is_prey(who);
  if (!awaited) {
    who.memory->restore(text_, at);
    if (doing_ == doing::exploring && is_prey(who) && found_.insert(at).second)
      planted_[at - text_.begin()] = text_.original(at);
    return;
  }
  // Whichever of its threads it is, the application is one.
  const unsigned count = prey_ == role::application ? ++hits_ : ++who.hits;
  hits_ = std::max(hits_, count);
  killed_at_ = at;
  if (count < shot_.hit) {
    who.memory->restore(text_, at);
    who.stepping_over = at;
  } else if (shot_.beyond != 0) {
    who.memory->restore(text_, at);
    who.steps_to_go = shot_.beyond;
  } else {
    fire(who);
  }
}

void hunt::fire(tracee& who) {
  if (killed_ || doing_ != doing::shooting) return;
  killed_ = true;
  shared_.killed_at = now_ns();
  if (who.what == role::between) {
    clean(who);
    ::kill(application_, SIGKILL);
  } else {
    tracer_.kill(who);
  }
  tracer_.for_each(prey_, [this](tracee& each) { clean(each); });
  if (prey_ == role::zygote) tracer_.let_held_go();
}

}  // namespace breakpoints
