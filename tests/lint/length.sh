#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# length.sh INCLUDE: a header past 600 lines usually holds two concepts.
find "$1" -name '*.hpp' -exec wc -l {} \; | awk '
  { files++ }
  $1 > 600 { print $2 ": " $1 " lines, more than 600"; long = 1 }
  END { if (files == 0) print "no headers"; exit long || files == 0 }'
