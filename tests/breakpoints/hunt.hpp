// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "board.hpp"
#include "code.hpp"
#include "tracer.hpp"

namespace breakpoints {

/// Where to kill: the `hit`-th time that the process comes to one of these addresses, and `beyond` single steps later,
/// which lead into the functions and system calls that are called there.
struct shot {
  std::set<address> at{};
  unsigned hit = 1;
  unsigned beyond = 0;
  bool slowly = false;  ///< it is stopped wherever it comes for the first time, as when exploring: others get further
};

/// What was counted.
struct tally {
  std::size_t kills = 0;
  std::size_t rounds = 0;
  std::size_t bad = 0;
  std::vector<std::int64_t> back_ns{};  ///< how long each replacement took
  std::int64_t longest_ns = 0;          ///< the longest wait for a result after a kill
  std::int64_t gone_ns = 0;             ///< the longest time until no process was left
};

/// Kills processes of one role, one after the other, each at an address and a hit, while an application goes through a
/// workload; and judges each time what has become of the workload.
class hunt {
 public:
  hunt(const code& text, role prey, std::string workload);
  ~hunt();

  /// The addresses of the library that the prey comes to in the workload, looked for in rounds at full speed until
  /// several in a row have shown nothing new.
  std::set<address> explore();

  struct result {
    bool killed = false;
    address at = 0;     ///< where
    unsigned hits = 0;  ///< how often one of the addresses was come to, at the most, by one process
  };
  /// One round of the workload, with a kill in it if it comes to that.
  result shoot(const shot& where);

  /// Before the next round an idle worker is killed, so that there is one that does things for the first time.
  void renew_worker();

  const tally& counted() const { return tally_; }

 private:
  enum class doing { nothing, exploring, shooting };

  void start();
  void stop();
  bool round();
  bool round_of_live_application();
  bool round_of_mortal_application();
  void judge();
  bool nothing_ran() const;
  void kill_stragglers();
  void plant(tracee& who);
  void clean(tracee& who);
  birth born(tracee& newborn);
  void hit(tracee& who, address at);
  void fire(tracee& who);
  bool is_prey(const tracee& who) const {
    return who.what == prey_ || (prey_ == role::application && who.what == role::between);
  }
  void complain(const std::string& what);

  const code& text_;
  const role prey_;
  const std::string workload_;
  board& shared_;
  tracer tracer_;
  pid_t application_ = -1;
  int line_ = -1;  ///< to the application: a byte for each round, one back at its end; or closed when all are gone

  doing doing_ = doing::nothing;
  std::set<address> found_;
  std::vector<unsigned char> everywhere_;  ///< the text with a breakpoint at each instruction
  std::vector<unsigned char> planted_;     ///< only where the prey has not been seen
  shot shot_;
  address killed_at_ = 0;
  unsigned hits_ = 0;
  bool killed_ = false;
  tally tally_;
};

}  // namespace breakpoints
