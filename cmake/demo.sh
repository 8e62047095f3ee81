#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh cmake/demo.sh: installs what is missing, builds examples/crashproof_grep.cpp, and searches a tree of this machine
# with it, together with a file on which std::regex crashes. The rest must be found all the same, as grep -rnE finds it.
set -u
cd "$(dirname "$0")/.." || exit 1
. cmake/packages.sh

install_missing demo default
say 'building examples/crashproof_grep.cpp in build/demo'
build demo --target example_crashproof_grep

work=$(mktemp -d "${TMPDIR:-/tmp}/procpool_demo.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
export LC_ALL=C.UTF-8
ulimit -s 8192 2>/dev/null # std::regex is to run out of stack, whatever the caller allows

# C++ calls that speak of an error and have a string behind it. Read alike by std::regex and by grep -E.
pattern='[a-z_]+_error.*"([^"\\]|\\.)*"'
killer=$work/one_long_line.cpp
{
  printf 'throw std::runtime_error("'
  head -c 200000 /dev/zero | tr '\0' x
  printf '");\n'
} >"$killer"
set -- /usr/include
if [ "$(du -sk /usr/share 2>/dev/null | cut -f 1)" -lt 300000 ]; then
  set -- "$@" /usr/share
fi

# search NAME OPTION...: the search of "$paths"; output, messages and the numbers of the summary go to $work/NAME.*
search() {
  name=$1
  shift
  build/demo/examples/crashproof_grep --summary "$@" >"$work/$name.out" 2>"$work/$name.err" </dev/null
  status=$?
  [ $status -eq 2 ] || {
    cat "$work/$name.err" >&2
    fail "exit status $status instead of 2, which says that a file failed"
  }
  sed -nE 's/^crashproof_grep: ([0-9]+) files searched, ([0-9]+) lines found, ([0-9]+) workers lost, ([0-9.]+) s with ([0-9]+) processes$/\1 \2 \3 \4 \5/p' \
    "$work/$name.err" >"$work/$name.numbers"
  [ -s "$work/$name.numbers" ] || fail 'crashproof_grep printed no summary'
  # Files whose task died, as grep would print them in front of a line.
  sed -n 's/^crashproof_grep: \(.*\): procpool: .*$/\1:/p' "$work/$name.err" >"$work/$name.failed"
  grep -qxF "$killer:" "$work/$name.failed" || fail "$killer is not listed as failed"
  awk 'NR == FNR { failed[$0]; next } { for (f in failed) if (index($0, f) == 1) next; print }' \
    "$work/$name.failed" "$work/expected" | cmp -s - "$work/$name.out" || fail "$name: the output is not that of grep -rnE"
}

say "crashproof_grep '$pattern' $* FILE"
echo "   FILE has one line of 200,000 characters; on such a line std::regex overflows the stack and its process dies"
grep -rnE -- "$pattern" "$@" "$killer" >"$work/expected" 2>/dev/null # also gets the files into memory, for a fair comparison
search parallel -- "$pattern" "$@" "$killer"
search single --processes 1 -- "$pattern" "$@" "$killer"

echo "   the tasks that died:"
sed -n 's/^crashproof_grep: \(.*: procpool: .*\)$/     \1/p' "$work/parallel.err"
read -r files lines lost time processes <"$work/parallel.numbers"
read -r _ _ _ time_of_one _ <"$work/single.numbers"
echo "   files searched: $files"
echo "   lines found:    $lines, the same as grep -rnE finds in the other files"
echo "   workers lost:   $lost, each of them replaced"
awk -v t="$time" -v n="$processes" -v one="$time_of_one" 'BEGIN {
  printf "   time:           %.1f s with %d processes, %.1f s with one: %.1f times as fast\n", t, n, one, one / t }'
