#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# names.sh PROJECT DOCUMENT: each file that the document names in backquotes or links to is there.
set -u
project=$1 document=$2
status=0

quoted=$(grep -oE '`[A-Za-z0-9_./*-]+\.(hpp|cpp|cmake|sh|awk|md|json|txt|expected)`' "$document" | tr -d '`' | sort -u)
linked=$(sed '/^```/,/^```$/d' "$document" | grep -oE '\]\([^):#]+\)' | tr -d ']()' | sort -u)
cd "$(dirname "$document")" || exit 1
# Not quoted: a name may be a pattern.
for name in $quoted; do
  found=
  for directory in "$project" "$project/include/procpool" "$project/include/procpool/detail" "$project/tests"; do
    for file in "$directory"/$name; do
      [ -e "$file" ] && found=$file
    done
  done
  [ -n "$found" ] || {
    echo "$document: there is no $name"
    status=1
  }
done
for name in $linked; do
  [ -e "$name" ] || {
    echo "$document: links to $name, which is not there"
    status=1
  }
done
exit $status
