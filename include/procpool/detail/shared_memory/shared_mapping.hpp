// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <fcntl.h>
#include <sys/mman.h>

#include <cstddef>
#include <optional>

#include <boost/interprocess/exceptions.hpp>
#include <boost/interprocess/mapped_region.hpp>

#include <procpool/detail/posix/system_call.hpp>
#include <procpool/detail/posix/unique_fd.hpp>

namespace procpool::detail {

/// Anonymous memory that this process shares with those that it forks, backed by the kernel only where it has been
/// touched; nothing where there is not so much address space (RLIMIT_AS, vm.overcommit_memory). Boost.Interprocess maps
/// what can name a descriptor: mapped shared, /dev/zero is anonymous shared memory (zero(4)).
inline std::optional<boost::interprocess::mapped_region> map_shared(std::size_t bytes) {
  struct zero_device {
    unique_fd fd{checked(::open("/dev/zero", O_RDWR | O_CLOEXEC), "open /dev/zero")};
    boost::interprocess::mapping_handle_t get_mapping_handle() const noexcept { return {fd.get(), false}; }
  };
  const zero_device device;
  try {
    constexpr auto flags = static_cast<boost::interprocess::map_options_t>(MAP_NORESERVE);
    return std::optional<boost::interprocess::mapped_region>(std::in_place, device, boost::interprocess::read_write, 0,
                                                             bytes, nullptr, flags);
  } catch (const boost::interprocess::interprocess_exception&) {
    return std::nullopt;
  }
}

}  // namespace procpool::detail
