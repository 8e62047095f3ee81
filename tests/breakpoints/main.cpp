// SPDX-License-Identifier: BSL-1.0
// breakpoints PREY WORKLOAD LISTING [OPTION...]: kills the worker, the zygote or the parent at every address of the
// library that it comes to in a workload, and judges each time what becomes of the rest. LISTING is what objdump says
// of this program. Options:
//   --first       each address once, and no more
//   --but OTHER   not the addresses that are come to in the workload OTHER, too
//   --part K N    one of N parts of the addresses, from 0; which one an address is in never changes
//   --kills N     at least N kills, at random places once the others are done
//   --bug N       the program has bugs built in: with the N-th it must come to a bad end
#include <sys/types.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "hunt.hpp"
#include "seeded_bug.hpp"
#include "workloads.hpp"

namespace breakpoints {
namespace {

struct options {
  role prey = role::worker;
  std::string workload{};
  std::string listing{};
  std::string but{};
  std::size_t part = 0;
  std::size_t parts = 1;
  bool first_only = false;
  std::size_t kills = 0;
  int bug = 0;
};

options read_arguments(const std::vector<std::string>& arguments) {
  options all;
  const std::string& prey = arguments.at(0);
  if (prey == "worker") {
    all.prey = role::worker;
  } else if (prey == "zygote") {
    all.prey = role::zygote;
  } else if (prey == "parent") {
    all.prey = role::application;
  } else {
    throw std::invalid_argument("no prey " + prey);
  }
  all.workload = arguments.at(1);
  all.listing = arguments.at(2);
  for (std::size_t i = 3; i != arguments.size(); ++i) {
    if (arguments[i] == "--first") {
      all.first_only = true;
    } else if (arguments[i] == "--but") {
      all.but = arguments.at(++i);
    } else if (arguments[i] == "--part") {
      all.part = std::stoul(arguments.at(++i));
      all.parts = std::stoul(arguments.at(++i));
      if (all.part >= all.parts) throw std::invalid_argument("no such part");
    } else if (arguments[i] == "--kills") {
      all.kills = std::stoul(arguments.at(++i));
    } else if (arguments[i] == "--bug") {
      all.bug = std::stoi(arguments.at(++i));
    } else {
      throw std::invalid_argument("no option " + arguments[i]);
    }
  }
  return all;
}

/// Memory of the system that is shared, by name or not.
struct shared_memory_of_the_system {
  std::size_t bytes = 0;  ///< proc(5), meminfo: Shmem
  std::set<std::string> names{};

  static shared_memory_of_the_system now() {
    shared_memory_of_the_system all;
    std::ifstream file("/proc/meminfo");
    std::string name;
    std::size_t kib = 0;
    while (file >> name && name != "Shmem:") file.ignore(4096, '\n');
    if (file >> kib) all.bytes = kib * 1024;
    std::error_code ignored;
    for (const auto& each : std::filesystem::directory_iterator("/dev/shm", ignored)) all.names.insert(each.path());
    return all;
  }

  /// Whether it is back to what it was before. Others use shared memory meanwhile: looked at for a while, and with
  /// some allowance, far below what so many pools together would leave.
  static bool back_to(const shared_memory_of_the_system& before) {
    constexpr std::size_t allowance = std::size_t{32} << 20;
    for (int look = 0; look != 300; ++look) {
      const auto after = now();
      if (after.bytes <= before.bytes + allowance &&
          std::includes(before.names.begin(), before.names.end(), after.names.begin(), after.names.end()))
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }
};

class run {
 public:
  explicit run(const options& wanted)
      : wanted_(wanted), text_(wanted.listing), hunt_(text_, wanted.prey, wanted.workload) {}

  int go() {
    const auto memory = shared_memory_of_the_system::now();
    auto found = hunt_.explore();
    std::printf("%zu of %zu instructions are come to", found.size(), text_.size());
    if (!wanted_.but.empty()) {
      for (const address at : hunt(text_, wanted_.prey, wanted_.but).explore()) found.erase(at);
      std::printf(", %zu of them not in the workload %s", found.size(), wanted_.but.c_str());
    }
    if (wanted_.parts > 1) {
      std::erase_if(found, [this](address at) { return text_.offset(at) % wanted_.parts != wanted_.part; });
      std::printf(", %zu of them in part %zu of %zu", found.size(), wanted_.part, wanted_.parts);
    }
    std::printf(" (%.1f s)\n", seconds());
    found_.assign(found.begin(), found.end());
    std::fflush(stdout);
    first_hits(found);
    if (!wanted_.first_only) {
      later_hits();
      beyond_calls();
    }
    random_places();
    return conclude(shared_memory_of_the_system::back_to(memory));
  }

 private:
  bool over() const { return hunt_.counted().bad >= (wanted_.bug != 0 ? 1 : 5); }

  /// Each address once. What is not come to again at once is waited for together with all others of that kind, at times
  /// as slowly as when it was found.
  void first_hits(const std::set<address>& found) {
    for (const address at : found) {
      if (over()) return;
      if (!hunt_.shoot({{at}, 1, 0}).killed) missed_.insert(at);
    }
    constexpr int enough = 100;
    for (int barren = 0; barren != enough && !missed_.empty() && !over();) {
      // Some are come to by a new worker only, others only by one that has filled its ring.
      if (barren < enough / 4 && barren % 2 == 1 && wanted_.prey == role::worker) hunt_.renew_worker();
      const auto result = hunt_.shoot({.at = missed_, .slowly = barren % 3 == 2});
      if (result.killed) missed_.erase(result.at);
      barren = result.killed ? 0 : barren + 1;
    }
    firsts_ = hunt_.counted().kills;
  }

  /// Each address the second, the third and the last time, if it is come to so often.
  void later_hits() {
    constexpr unsigned uncountable = 300;  // where something is waited for, a hit has no number
    for (const address at : found_) {
      if (over()) return;
      if (missed_.contains(at)) continue;
      if (!hunt_.shoot({{at}, 2, 0}).killed) continue;
      if (!hunt_.shoot({{at}, 3, 0}).killed) continue;
      unsigned last = hunt_.shoot({{at}, uncountable, 0}).hits;
      for (int tries = 0; last > 3 && last < uncountable && tries != 5; ++tries) {
        const auto result = hunt_.shoot({{at}, last, 0});
        if (result.killed) {
          ++lasts_;
          break;
        }
        last = result.hits;
      }
    }
  }

  /// Inside of what the library calls: copies of memory, system calls.
  void beyond_calls() {
    for (const address at : found_) {
      if (missed_.contains(at) || !text_.calls_out(at)) continue;
      for (const unsigned steps : {4U, 12U, 40U}) {
        if (over()) return;
        if (hunt_.shoot({{at}, 1, steps}).killed) ++beyonds_;
      }
    }
  }

  void random_places() {
    std::mt19937 random(20240229);
    const auto below = [&](std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random); };
    while (hunt_.counted().kills < wanted_.kills && !over() && !found_.empty()) {
      const address at = found_[below(found_.size())];
      const auto steps = below(2) == 0 ? 0 : below(300);
      hunt_.shoot({{at}, static_cast<unsigned>(1 + below(8)), static_cast<unsigned>(steps)});
    }
  }

  int conclude(bool memory_is_back) {
    const tally& counted = hunt_.counted();
    std::printf(
        "%zu kills in %zu rounds: %zu at a first hit, %zu at a last, %zu inside a call; %zu addresses not come to "
        "again; %zu bad (%.1f s)\n",
        counted.kills, counted.rounds, firsts_, lasts_, beyonds_, missed_.size(), counted.bad, seconds());
    std::size_t shown = 0;
    for (const address at : missed_) {
      if (++shown <= 10) std::printf("  not come to again: %s\n", text_.name(at).c_str());
    }
    auto back = counted.back_ns;
    std::sort(back.begin(), back.end());
    if (!back.empty()) {
      std::printf("worker back after (ms): median %.1f, 99 of 100 within %.1f, longest %.1f\n",
                  ms(back[back.size() / 2]), ms(back[back.size() * 99 / 100]), ms(back.back()));
    }
    if (counted.longest_ns != 0)
      std::printf("longest wait for a result after a kill: %.1f ms\n", ms(counted.longest_ns));
    if (counted.gone_ns != 0) std::printf("no process left after, at the longest: %.1f ms\n", ms(counted.gone_ns));
    if (!memory_is_back) std::printf("bad: shared memory is left\n");
    if (wanted_.bug != 0) {
      std::printf("%s\n", counted.bad != 0 ? "the bug is found" : "the bug is not found");
      return counted.bad != 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    // Some places are come to in races alone, and not every day.
    const bool enough = counted.kills >= wanted_.kills && missed_.size() * 20 <= found_.size() && !found_.empty();
    if (!enough) std::printf("bad: too few addresses, or too many that are not come to again\n");
    return counted.bad == 0 && memory_is_back && enough ? EXIT_SUCCESS : EXIT_FAILURE;
  }

  static double ms(std::int64_t ns) { return 1e-6 * static_cast<double>(ns); }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun_).count(); }

  const options wanted_;
  const code text_;
  hunt hunt_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  std::vector<address> found_;
  std::set<address> missed_;
  std::size_t firsts_ = 0;
  std::size_t lasts_ = 0;
  std::size_t beyonds_ = 0;
};

}  // namespace
}  // namespace breakpoints

int main(int argc, char** argv) {
  using namespace breakpoints;
  try {
    const options wanted = read_arguments({argv + 1, argv + argc});
    seeded_bug = wanted.bug;
    return run(wanted).go();
  } catch (const std::exception& failure) {
    std::printf("breakpoints: %s\n", failure.what());
    return EXIT_FAILURE;
  }
}
