// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include <procpool/detail/job.hpp>
#include <procpool/detail/posix/descriptor_registry.hpp>
#include <procpool/detail/posix/message_socket.hpp>
#include <procpool/detail/posix/unique_fd.hpp>
#include <procpool/detail/shared_memory/lane_port.hpp>
#include <procpool/detail/shared_memory/region.hpp>

namespace support {

/// Lives on the stack of the test: nobody counts who refers to it, and nothing is done with its outcomes.
class idle_job : public procpool::detail::parted_job {
 public:
  explicit idle_job(procpool::detail::task_code what) : parted_job(what, "test", 0) {}
  void retain() noexcept override {}
  void release() noexcept override {}
  bool settle(std::size_t, procpool::detail::reply&) noexcept override { return true; }
};

/// Code of a task whose argument and result are numbers.
inline procpool::detail::reply_kind double_number(procpool::detail::call_frame& frame) {
  frame.result.put(2 * frame.arguments.get<std::uint64_t>());
  return procpool::detail::reply_kind::value;
}

/// An element for each value; `first` is the place of the first one in its job.
template <class... Values>
procpool::detail::chunk chunk_of(procpool::detail::job& target, std::size_t first, Values... values) {
  procpool::detail::inputs_ptr arguments(new procpool::detail::inputs);
  ((arguments->bytes.put(values), arguments->end_element()), ...);
  return {procpool::detail::job_ptr(&target), arguments, 0, first, sizeof...(values)};
}

/// A lane with a connection, at whose other end nobody is but the test. The jobs of what is posted live longer.
struct lane_without_worker {
  lane_without_worker() {
    auto [ours, theirs] = procpool::detail::make_message_sockets();
    worker_socket = std::move(theirs);
    port.reset(0, procpool::detail::registered_fd(std::move(ours)));
  }
  ~lane_without_worker() {
    std::vector<procpool::detail::chunk> left;
    port.take_all(left, left);
  }

  procpool::detail::shared_region region{1};
  procpool::detail::lane_port port{region, 0};
  procpool::detail::unique_fd worker_socket{};
};

}  // namespace support
