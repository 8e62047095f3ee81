// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <procpool/detail/codec/call.hpp>
#include <procpool/detail/job.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/shared_array.hpp>
#include <procpool/this_worker.hpp>

namespace instructions {

using namespace procpool::detail;

// ---- what has run -------------------------------------------------------------------------------------------------

/// How often the user's code of one element was entered, and left.
struct run_count {
  std::atomic<std::uint32_t> entered;
  std::atomic<std::uint32_t> finished;
};

/// One for each element, and for initializer and finalizer, in shared memory that is no lane's.
class run_counts {
 public:
  static constexpr std::size_t most = 1 << 16;
  static constexpr std::uint64_t nobody = 0;  ///< what a task counts that reads zeros for its arguments
  static constexpr std::uint64_t initializer = 1;
  static constexpr std::uint64_t finalizer = 2;
  static constexpr std::uint64_t first_element = 3;

  run_counts() {
    void* at = ::mmap(nullptr, most * sizeof(run_count), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc();
    counts_ = static_cast<run_count*>(at);
  }
  run_counts(const run_counts&) = delete;
  run_counts& operator=(const run_counts&) = delete;
  ~run_counts() { ::munmap(counts_, most * sizeof(run_count)); }

  run_count& operator[](std::uint64_t id) const { return counts_[id]; }

 private:
  run_count* counts_ = nullptr;
};

/// Where tasks count; null while nothing is to be counted.
inline const run_counts* counted = nullptr;

/// While the user's code of an element runs.
class running {
 public:
  explicit running(std::uint64_t id) : id_(id) {
    if (counted != nullptr) (*counted)[id_].entered.fetch_add(1);
  }
  running(const running&) = delete;
  running& operator=(const running&) = delete;
  ~running() {
    if (counted != nullptr) (*counted)[id_].finished.fetch_add(1);
  }

 private:
  const std::uint64_t id_;
};

// ---- tasks --------------------------------------------------------------------------------------------------------

/// Bytes to copy results from: two elements' results differ at every place.
inline const char* pattern() {
  static const std::vector<char> bytes = [] {
    std::vector<char> made(std::size_t{1} << 18);
    std::uint32_t x = 1;
    for (char& each : made) each = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
    return made;
  }();
  return bytes.data();
}

inline std::uint64_t small_task(std::uint64_t id) {
  const running here(id);
  return id * 0x0101010101010101;
}

inline std::string text_task(std::uint64_t id, std::uint64_t size) {
  const running here(id);
  return {pattern() + id % 4096, static_cast<std::size_t>(size)};
}

inline std::string large_task(std::uint64_t id, std::string_view argument) {
  const running here(id);
  std::string result(argument);
  result.front() = static_cast<char>(id);
  result.back() = static_cast<char>(id + 1);
  return result;
}

inline std::uint64_t throwing_task(std::uint64_t id) {
  const running here(id);
  throw std::runtime_error("element " + std::to_string(id) + " fails");
}

/// Whether it was asked to stop.
inline bool asked_task(std::uint64_t id) {
  const running here(id);
  return procpool::this_worker::stop_requested();
}

/// Fails when told to.
inline std::uint64_t failing_task(std::uint64_t id, bool fails) {
  const running here(id);
  if (fails) throw std::out_of_range("element " + std::to_string(id));
  return id;
}

/// Cannot be sent: its own function says so.
struct awkward {
  std::uint64_t id = 0;

  template <class Archive>
  void save(Archive&) const {
    throw std::logic_error("element " + std::to_string(id) + " does not travel");
  }
  template <class Archive>
  void load(Archive&) {}
};

inline awkward awkward_task(std::uint64_t id) {
  const running here(id);
  return {id};
}

/// A callable with bytes of its own, which a worker keeps for a chunk.
struct labelling {
  std::string label;

  std::string operator()(std::uint64_t id) const {
    const running here(id);
    return label + std::to_string(id);
  }
};

inline procpool::shared_array<std::uint64_t> array_task(std::uint64_t id, procpool::shared_array<std::uint64_t> in) {
  const running here(id);
  auto out = procpool::make_shared_array<std::uint64_t>(in.size());
  for (std::size_t i = 0; i != in.size(); ++i) out[i] = in[i] * id;
  return out;
}

/// Its result is larger than any lane.
inline reply_kind endless_code(call_frame& frame) {
  const running here(frame.arguments.get<std::uint64_t>());
  frame.result.extend(std::size_t{1} << 60);
  return reply_kind::value;
}

// ---- messages -----------------------------------------------------------------------------------------------------

/// What an element that is not lost has to end in.
struct expected_reply {
  reply_kind kind{};
  std::vector<std::byte> bytes{};
  bool runs = true;

  bool operator==(const expected_reply&) const = default;
};

/// The elements of one job, and what is expected of them. An element's place in the job is its id, too.
class message {
 public:
  using verifier = std::function<bool(std::uint64_t id, const lane_port::worker_reply&, lane_port&)>;

  class elements final : public parted_job {
   public:
    explicit elements(task_code what) : parted_job(what, "instructions", 0) {}
    void retain() noexcept override {}
    void release() noexcept override {}
    bool settle(std::size_t, reply&) noexcept override { return true; }
  };

  message(std::string text, std::uint64_t first_id, task_code code)
      : name(std::move(text)), first(first_id), job(code) {}
  message(const message&) = delete;
  message& operator=(const message&) = delete;

  const std::string name;
  const std::uint64_t first;
  elements job;
  std::vector<chunk> chunks;
  std::vector<expected_reply> expected;
  verifier verify;                ///< instead of the comparison of bytes
  std::uint32_t series_size = 0;  ///< what its job would have, to run as series
  bool uses_attachments = false;
  bool uses_request_arena = false;

  std::size_t count() const noexcept { return expected.size(); }
  bool has(std::uint64_t id) const noexcept { return id >= first && id - first < count(); }

  /// Adds a chunk, and runs its elements here to learn what they end in.
  void add(inputs_ptr arguments) {
    chunks.push_back({job_ptr(&job), arguments, 0, static_cast<std::size_t>(first) + count(), arguments->count()});
    const run_counts* const kept = std::exchange(counted, nullptr);
    for (std::size_t i = 0; i != arguments->count(); ++i) expected.push_back(run_here(*arguments, i));
    counted = kept;
  }

  /// Cuts its one chunk into such of `each` elements.
  void cut(std::size_t each) {
    while (chunks.back().count > each) {
      chunk rest = chunks.back().split(each);
      chunks.push_back(std::move(rest));
    }
  }

 private:
  expected_reply run_here(const inputs& arguments, std::size_t i) {
    const std::size_t begin = arguments.begin_of(i);
    byte_reader reader(arguments.bytes.data() + begin, arguments.end_of(i) - begin);
    heap_writer result;
    std::shared_ptr<void> nothing;
    call_frame frame{byte_reader(job.callable.data(), job.callable.size()), reader, result, nothing};
    try {
      const reply_kind kind = job.code()(frame);
      return {kind, {result.data(), result.data() + result.size()}};
    } catch (const std::bad_alloc&) {
      return {reply_kind::out_of_memory};
    }
  }
};

/// A message of `count` elements in chunks of `each`; `arguments_of(id)` is a tuple.
template <class F, class ArgumentsOf>
std::unique_ptr<message> make_message(std::string name, std::uint64_t first, const F& callable, std::size_t count,
                                      std::size_t each, ArgumentsOf arguments_of) {
  return std::apply(
      [&]<class... Args>(const Args&...) {
        using calling = call<F, Args...>;
        auto made = std::make_unique<message>(std::move(name), first, &calling::code);
        calling::encode_callable(made->job.callable, callable);
        made->series_size = calling::series_size;
        for (std::size_t done = 0; done != count;) {
          inputs_ptr encoded(new inputs);
          for (std::size_t i = 0; i != each && done != count; ++i, ++done) {
            std::apply([&](const Args&... values) { calling::encode_arguments(encoded->bytes, values...); },
                       arguments_of(first + done));
            encoded->end_element();
          }
          made->add(std::move(encoded));
        }
        return made;
      },
      arguments_of(first));
}

/// Its elements run in one go, as far as they can, and are awaited together.
inline std::unique_ptr<message> as_series(std::unique_ptr<message> what) {
  if (what->series_size == 0) throw std::logic_error(what->name + " cannot run as a series");
  what->job.series_size = what->series_size;
  what->job.awaited_together = true;
  return what;
}

}  // namespace instructions
