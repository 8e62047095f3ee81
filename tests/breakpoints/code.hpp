// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <link.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace breakpoints {

using address = std::uintptr_t;

/// The instructions of this program that belong to the library: all but the functions of these tests' own namespace.
/// Library templates that are instantiated with types of the tests are the library's.
class code {
 public:
  /// `listing`: what `objdump -d --no-show-raw-insn -j .text` says of this program.
  explicit code(const std::string& listing) {
    ::dl_iterate_phdr(
        [](dl_phdr_info* object, std::size_t, void* to) {
          *static_cast<address*>(to) = object->dlpi_addr;
          return 1;  // the first is the program itself
        },
        &bias_);
    read(listing);
    if (count_ == 0) throw std::runtime_error("no instruction found in " + listing);
    original_.resize(end_ - begin_);
    std::memcpy(original_.data(), reinterpret_cast<const void*>(begin_), original_.size());
    planted_ = original_;
    for (std::size_t i = 0; i != kinds_.size(); ++i) {
      if (kinds_[i] != kind::none) planted_[i] = breakpoint;
    }
  }

  static constexpr unsigned char breakpoint = 0xcc;  ///< INT3

  bool is_start(address at) const { return kind_of(at) != kind::none; }
  /// Whether the instruction calls a function of another library, such as memcpy or a system call.
  bool calls_out(address at) const { return kind_of(at) == kind::leaving; }
  unsigned char original(address at) const { return original_[at - begin_]; }
  std::size_t size() const { return count_; }
  /// From the program's begin: the same in every run of it.
  std::size_t offset(address at) const { return at - bias_; }

  /// The text from the first such instruction to the last, as it is, and with a breakpoint on every one of them.
  address begin() const { return begin_; }
  const std::vector<unsigned char>& text() const { return original_; }
  const std::vector<unsigned char>& planted_text() const { return planted_; }

  /// "FUNCTION+0x12", mangled.
  std::string name(address at) const {
    auto after = functions_.upper_bound(at);
    if (after == functions_.begin()) return "?";
    --after;
    char offset[32];
    std::snprintf(offset, sizeof(offset), "+0x%zx", at - after->first);
    return after->second + offset;
  }

 private:
  /// What begins at an address.
  enum class kind : unsigned char { none, instruction, leaving };

  kind kind_of(address at) const { return at >= begin_ && at < end_ ? kinds_[at - begin_] : kind::none; }

  void read(const std::string& listing) {
    std::ifstream file(listing);
    bool ours = false;
    for (std::string line; std::getline(file, line);) {
      if (line.empty()) continue;
      std::size_t parsed = 0;
      if (line[0] == ' ') {  // "  401136:\tpush   %rbp"
        if (!ours) continue;
        const address at = bias_ + std::stoull(line, &parsed, 16);
        if (parsed >= line.size() || line[parsed] != ':') continue;
        const bool leaves = line.find("call", parsed) != std::string::npos && line.find("@plt>") != std::string::npos;
        if (begin_ == 0) begin_ = at;
        end_ = at + 1;
        kinds_.resize(end_ - begin_);
        kinds_.back() = leaves ? kind::leaving : kind::instruction;
        ++count_;
      } else if (line.back() == ':' && line.find(" <") != std::string::npos) {  // "0000000000401136 <_ZN…>:"
        const std::size_t open = line.find('<');
        const std::string name = line.substr(open + 1, line.size() - open - 3);
        const bool of_tests = name.find("11breakpoints") != std::string::npos || name == "main";
        ours = name.find("8procpool") != std::string::npos || (!of_tests && name.starts_with("_Z"));
        functions_.emplace(bias_ + std::stoull(line, &parsed, 16), name);
      }
    }
  }

  address bias_ = 0;
  address begin_ = 0;
  address end_ = 0;
  // By address from begin_. Every process of the applications inherits it from the tracer, so that each fork has to copy
  // the page tables of it: small, and no map.
  std::vector<kind> kinds_;
  std::size_t count_ = 0;
  std::map<address, std::string> functions_;
  std::vector<unsigned char> original_;
  std::vector<unsigned char> planted_;
};

}  // namespace breakpoints
