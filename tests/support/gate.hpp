// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cstdlib>

namespace support {

/// A door between processes: shut at first, and once it has been opened, open for all and for ever. Made before the
/// pool, so that the workers inherit it; tasks capture its key.
class gate {
 public:
  struct key {
    int reading;
    int writing;

    void open() const {
      if (::write(writing, "o", 1) != 1) std::abort();
    }
    bool is_open(int patience_ms = 0) const {
      pollfd waiting{reading, POLLIN, 0};
      return ::poll(&waiting, 1, patience_ms) == 1;
    }
    /// Waits for the gate to open; not for ever, so that a test that fails leaves nobody behind.
    void pass() const {
      if (!is_open(30'000)) std::abort();
    }
  };

  gate() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) std::abort();
    key_ = {ends[0], ends[1]};
  }
  gate(const gate&) = delete;
  gate& operator=(const gate&) = delete;
  ~gate() {
    ::close(key_.reading);
    ::close(key_.writing);
  }

  key in_task() const { return key_; }
  void open() const { key_.open(); }
  bool is_open(int patience_ms = 0) const { return key_.is_open(patience_ms); }
  void pass() const { key_.pass(); }

 private:
  key key_{};
};

}  // namespace support
