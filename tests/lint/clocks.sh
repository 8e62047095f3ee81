#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# clocks.sh INCLUDE: time limits are kept by a clock that nobody sets. Comments may speak of others.
found=$(find "$1" -name '*.hpp' -exec sh -c 'for file do sed "s://.*$::" "$file" | grep -nE "$0" | sed "s|^|$file:|"; done' \
  'system_clock|high_resolution_clock|CLOCK_REALTIME|gettimeofday|timespec_get|[^_[:alnum:]]time\((nullptr|NULL|0)\)' {} +)
[ -z "$found" ] || {
  echo "$found"
  exit 1
}
