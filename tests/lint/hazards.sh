#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# hazards.sh TESTS DOCUMENT: each row of the table of hazards names tests, and each test that is named exists.
set -u
tests=$1 document=$2
names=$(mktemp) && trap 'rm -f "$names"' EXIT

# The last column, a name a line, with the number of its row; a row without any is told here.
awk -F ' \\| ' '
  /^\| [0-9]+ \|/ {
    rows++
    number = substr($1, 3)
    count = split($NF, part, "`")
    for (i = 2; i < count; i += 2) print number "\t" part[i]
    if (count < 3) { print "row " number " names no test" > "/dev/stderr"; bad = 1 }
  }
  END { if (rows == 0) print "no rows" > "/dev/stderr"; exit bad || rows == 0 }' "$document" > "$names"
status=$?

exists() {
  kind=${1%%:*}
  case $1 in
    *": "*)
      rest=${1#*: }
      [ -e "$tests/$kind/$rest.cpp" ] || [ -e "$tests/$kind/$rest.pml" ] ||
        grep -qF "$rest\"" "$tests/$kind/CMakeLists.txt" 2> /dev/null
      ;;
    *) grep -qF "TEST_CASE(\"${1#*:}\"" "$tests/${kind}_test.cpp" 2> /dev/null ;;
  esac
}

tab=$(printf '\t')
while IFS=$tab read -r row name; do
  exists "$name" || {
    echo "row $row: there is no test $name"
    status=1
  }
done < "$names"
echo "$(wc -l < "$names") names of tests"
exit $status
