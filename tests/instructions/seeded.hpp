// SPDX-License-Identifier: BSL-1.0
#pragma once

#include <string_view>

namespace instructions {

enum class mutant {
  none,
#define MUTANT(name) name,
#include "mutants.def"
#undef MUTANT
};

inline constexpr std::string_view mutant_names[] = {
    "none",
#define MUTANT(name) #name,
#include "mutants.def"
#undef MUTANT
};

/// The one that this process has.
inline mutant seeded_mutant = mutant::none;

}  // namespace instructions

#define SEEDED(name) (::instructions::seeded_mutant == ::instructions::mutant::name)
