// SPDX-License-Identifier: BSL-1.0
// storms kills|trees|leaks|soak [--OPTION NUMBER]...: procpool under random kills, and for a long time. Each tool says
// what it did in its last line, and its exit status is not 0 if something did not hold.
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "kill_storm.hpp"
#include "leaks.hpp"
#include "soak.hpp"
#include "trees.hpp"

int main(int argc, char** argv) {
  const std::string_view tool = argc > 1 ? argv[1] : "";
  const storms::options wanted(argc, argv);
  if (tool == "kills") return storms::kill_storm(wanted).run();
  if (tool == "trees") return storms::trees(wanted).run();
  if (tool == "leaks") return storms::leaks(wanted).run();
  if (tool == "soak") return storms::soak(wanted).run();
  std::fputs("usage: storms kills|trees|leaks|soak [--OPTION NUMBER]...\n", stderr);
  return 2;
}
