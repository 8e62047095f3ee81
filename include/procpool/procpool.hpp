// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <procpool/codec.hpp>
#include <procpool/error.hpp>
#include <procpool/future.hpp>
#include <procpool/fwd.hpp>
#include <procpool/hardening.hpp>
#include <procpool/lazy_results.hpp>
#include <procpool/options.hpp>
#include <procpool/outcome.hpp>
#include <procpool/process_pool.hpp>
#include <procpool/shared_array.hpp>
#include <procpool/submitter.hpp>
#include <procpool/this_worker.hpp>
#include <procpool/transport/in_process.hpp>
#include <procpool/transport/shared_memory.hpp>
#include <procpool/transport/transport.hpp>
#include <procpool/version.hpp>
