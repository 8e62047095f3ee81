#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# beginning.sh INCLUDE: the first line names the licence, the second is #pragma once.
find "$1" -name '*.hpp' -exec awk '
  FNR == 1 && $0 != "// SPDX-License-Identifier: BSL-1.0" { print FILENAME ": no licence line"; bad = 1 }
  FNR == 2 && $0 != "#pragma once" { print FILENAME ": the second line is not #pragma once"; bad = 1 }
  END { exit bad }' {} +
