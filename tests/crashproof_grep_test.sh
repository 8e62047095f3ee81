#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# Compares examples/crashproof_grep.cpp with grep: crashproof_grep_test.sh PROGRAM [TREE]
# TREE, searched as well, is a directory with some thousand text files; the C++ compiler's headers if not given.
set -u
program=$1
tree=${2:-/usr/include/c++}
ulimit -s 8192 # std::regex is to run out of stack, whatever the caller allows

work=$(mktemp -d "${TMPDIR:-/tmp}/crashproof_grep.XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
failures=0

fail() {
  printf 'FAILED: %s\n' "$*"
  failures=$((failures + 1))
}

# compare STATUS OPTIONS PATTERN PATH...: same output as grep -rnE, same messages as grep -rnEI (those about
# directories come earlier)
compare() {
  expected=$1
  options=$2
  shift 2
  for locale in C C.UTF-8; do
    # shellcheck disable=SC2086  # options are words
    LC_ALL=$locale "$program" $options -- "$@" >"$work/out" 2>"$work/err"
    status=$?
    LC_ALL=$locale grep -rnE -- "$@" >"$work/grep.out" 2>/dev/null
    LC_ALL=$locale grep -rnEI -- "$@" 2>&1 >/dev/null | sed 's/^grep:/crashproof_grep:/' | sort >"$work/grep.err"
    cmp "$work/out" "$work/grep.out" || fail "output for $* in $locale"
    sort "$work/err" | diff - "$work/grep.err" || fail "messages for $* in $locale"
    [ "$status" -eq "$expected" ] || fail "exit status $status instead of $expected for $* in $locale"
  done
}

# ---- a tree with everything that grep treats in a way of its own ----------------------------------------------------
mkdir -p "$work/tree/sub/deeper" "$work/tree/with space" "$work/empty"
cd "$work/tree" || exit 1
printf 'needle in the first line\nhay\n\nhay and needle\n' >plain.txt
printf 'no newline at the end: needle' >no_newline.txt
: >empty.txt
printf '\n' >empty_line.txt
printf '\n\n\nneedle\n\n' >empty_lines.txt
printf 'needle\r\nhay\r\n' >crlf.txt
printf 'needle\nneedle \0 needle\nneedle\n' >nul.bin
printf 'needle\nneedle \377\376 needle\nneedle\n' >invalid_utf8.txt
printf 'needle \303\251\n\303\251\n' >utf8.txt
printf 'needle\n' >'with space/a needle: 1:.txt'
printf 'needle\n' >sub/.hidden
printf 'needle\n' >sub/deeper/last
printf 'needle\n' >"$(printf 'name_\377')"
ln -s ../plain.txt sub/link.txt
ln -s sub link_to_directory
mkfifo sub/fifo
i=0
while [ $i -lt 300 ]; do
  printf 'hay\nneedle %d\n' $i >"sub/file$i"
  i=$((i + 1))
done
# A NUL byte in the third block, with lines before it; a binary file in its last byte; holes in front and behind.
awk 'BEGIN { for (i = 0; i < 20000; ++i) print "needle number", i }' >late_nul.bin
printf 'needle \0 needle\nneedle\n' >>late_nul.bin
awk 'BEGIN { for (i = 0; i < 20000; ++i) print "needle number", i }' >text.txt
cp text.txt hole.bin
truncate -s 3M hole.bin
truncate -s 1M hole_first.bin
cat text.txt >>hole_first.bin

compare 0 '' needle .
compare 0 '' needle ./
compare 0 '' needle sub//
compare 0 '--processes 1' needle "$work/tree"
compare 0 '--processes=7' '^(needle|hay).*[0-9]$' .
compare 0 '' '^$' .
compare 0 '' '' sub empty_line.txt no_newline.txt
compare 0 '' needle sub plain.txt link_to_directory sub/link.txt 'with space'
compare 0 '' needle plain.txt
compare 0 '' '-?needle' plain.txt no_newline.txt
compare 1 '' 'nowhere to be found' .
compare 1 '' needle "$work/empty"
compare 1 '' needle empty.txt
compare 2 '' needle sub missing plain.txt
compare 2 '' needle missing
compare 0 '' 'template' "$tree"
compare 1 '' 'no such thing (in|on) earth' "$tree"

if [ "$(id -u)" -ne 0 ]; then  # root may read everything
  mkdir locked
  printf 'needle\n' >locked/file
  printf 'needle\n' >locked_file
  chmod 0 locked locked_file
  compare 2 '' needle .
  chmod 700 locked
  rm -rf locked locked_file
fi

# ---- more entries than grep leaves in the directory's own order -----------------------------------------------------
mkdir "$work/many"
(cd "$work/many" && awk 'BEGIN { for (i = 0; i < 10050; ++i) print "needle" >("file" i) }' && mkdir file && : >file/x)
compare 0 '' needle "$work/many"
rm -r "$work/many"

# ---- lines that kill std::regex -------------------------------------------------------------------------------------
# In a tree of their own: after a long line grep reads larger blocks, and finds a NUL byte further behind.
mkdir -p "$work/deadly/killers/a" "$work/deadly/killers/b"
cp -R sub ./*.txt "$work/deadly"
cd "$work/deadly" || exit 1
head -c 1000000 /dev/zero | tr '\0' a >killers/a/killer.txt
head -c 3000000 /dev/zero | tr '\0' b >killers/killer.txt
printf '\nab needle\n' | tee -a killers/a/killer.txt killers/killer.txt >killers/b/fine.txt
"$program" --processes 2 --summary '(a|b)*c|needle' . >"$work/out" 2>"$work/err"
status=$?
grep -rnE '(a|b)*c|needle' . 2>/dev/null | LC_ALL=C grep -av '/killer\.txt:' >"$work/grep.out"
cmp "$work/out" "$work/grep.out" || fail 'output beside killers'
[ "$status" -eq 2 ] || fail "exit status $status instead of 2 with killers"
for killer in ./killers/a/killer.txt ./killers/killer.txt; do
  [ "$(grep -c "^crashproof_grep: $killer: .*worker [0-9]* " "$work/err")" -eq 1 ] || fail "$killer is not listed"
done
summary='^crashproof_grep: [0-9]+ files searched, [0-9]+ lines found, 2 workers lost, [0-9.]+ s with 2 processes$'
grep -qE "$summary" "$work/err" || fail 'no summary'
[ "$(grep -cvE "$summary" "$work/err")" -eq 2 ] || fail 'more messages than failures'
[ $failures -eq 0 ] || cat "$work/err"

# ---- patterns that take for ever ------------------------------------------------------------------------------------
mkdir "$work/slow"
cd "$work/slow" || exit 1
printf 'aaa\nneedle\n' >a_fine.txt
head -c 60 /dev/zero | tr '\0' a >b_endless.txt
printf 'b\n' >>b_endless.txt
printf 'aa\n' >c_fine.txt
"$program" --processes 2 --timeout 0.7 --summary '(a|aa)+$|needle' . >"$work/out" 2>"$work/err"
status=$?
[ "$status" -eq 2 ] || fail "exit status $status instead of 2 with a file that takes for ever"
printf './a_fine.txt:1:aaa\n./a_fine.txt:2:needle\n./c_fine.txt:1:aa\n' >"$work/expected"
sort "$work/out" | cmp - "$work/expected" || fail 'output beside a slow file'
grep -q '^crashproof_grep: ./b_endless.txt: .*longer than its time limit of 700 ms$' "$work/err" ||
  fail 'the file that takes for ever is not listed'
compare 0 '--timeout 100' 'a|needle' .

cd "$work/tree" || exit 1

# ---- the command line, and output that is input ---------------------------------------------------------------------
refused() {
  "$program" "$@" >"$work/out" 2>"$work/err"
  status=$?
  [ "$status" -eq 2 ] || fail "exit status $status instead of 2 for: $*"
  [ -s "$work/out" ] && fail "output for: $*"
  grep -q '.*crashproof_grep: .' "$work/err" || fail "no message for: $*"
}
refused
refused needle
refused '(needle' .
refused '*' .
refused --processes 0 needle .
refused --processes -3 needle .
refused --processes two needle .
refused --processes 2x needle .
refused --timeout 0 needle .
refused --timeout -1 needle .
refused --timeout soon needle .
refused --no-such-option needle .
"$program" --help | grep -q '^Usage: crashproof_grep' || fail 'no help'

printf 'needle\n' >output
"$program" needle . >>output 2>"$work/err"
status=$?
[ "$status" -eq 2 ] || fail "exit status $status instead of 2 when the output is searched"
grep -q '^crashproof_grep: ./output: input file is also the output$' "$work/err" || fail 'output file not recognised'
rm output
if [ -c /dev/full ]; then
  "$program" needle . >/dev/full 2>"$work/err"
  status=$?
  [ "$status" -eq 2 ] || fail "exit status $status instead of 2 when the device is full"
fi

[ $failures -eq 0 ] && echo 'all as grep'
exit $((failures != 0))
