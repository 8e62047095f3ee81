// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <exception>

#include <boost/system/result.hpp>

namespace procpool {

/// How one task ended: in a value, or in the error that its future would throw, which `value()` throws.
template <class R>
using outcome = boost::system::result<R, std::exception_ptr>;

}  // namespace procpool
