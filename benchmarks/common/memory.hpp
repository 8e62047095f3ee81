// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>
#include <cstring>
#include <fstream>
#include <new>
#include <string>

namespace bench {

constexpr std::size_t mebibyte = std::size_t{1} << 20;

/// Anonymous memory, shared with the processes forked later or private.
class mapping {
 public:
  enum class kind { shared, own };
  mapping(std::size_t bytes, kind what) : bytes_(bytes) {
    const int flags = MAP_ANONYMOUS | (what == kind::shared ? MAP_SHARED : MAP_PRIVATE);
    data_ = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    ::madvise(data_, bytes, MADV_NOHUGEPAGE);  // the same on all systems, and the dearest to fork
  }
  mapping(const mapping&) = delete;
  mapping& operator=(const mapping&) = delete;
  ~mapping() { ::munmap(data_, bytes_); }

  void touch() { std::memset(data_, 1, bytes_); }
  std::size_t size() const { return bytes_; }
  char* data() const { return static_cast<char*>(data_); }

 private:
  std::size_t bytes_;
  void* data_;
};

/// A parent whose heap has grown: a gibibyte of small pages, all of them touched.
struct gibibyte_of_heap : mapping {
  gibibyte_of_heap() : mapping(1024 * mebibyte, kind::own) { touch(); }
};

/// One `T` that processes forked later share.
template <class T>
class shared {
 public:
  shared() : memory_(sizeof(T), mapping::kind::shared) { value_ = ::new (memory_.data()) T; }
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  mapping memory_;
  T* value_;
};

/// A field of /proc/PID/FILE that is given in kB, in MiB; -1 if it cannot be read.
inline double proc_mebibytes(pid_t pid, const char* file, const std::string& field) {
  std::ifstream in("/proc/" + std::to_string(pid) + "/" + file);
  for (std::string line; std::getline(in, line);) {
    if (line.compare(0, field.size() + 1, field + ":") == 0) return std::stod(line.substr(field.size() + 1)) / 1024;
  }
  return -1;
}

}  // namespace bench
