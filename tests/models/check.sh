#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# check.sh COMPILER MODEL holds|finds [NAME[=VALUE]...]
# Searches all states of a Promela model, with the macros defined. `holds`: there is no error, and no statement that is
# never reached. `finds`: there is one.
set -u
compiler=$1 model=$2 expected=$3
shift 3

fail() {
  echo "$(basename "$model") $*"
  exit 1
}

command -v spin >/dev/null 2>&1 || fail 'cannot be checked: spin is not installed (package "spin")'
command -v gcc >/dev/null 2>&1 || fail 'cannot be checked: spin needs gcc as its preprocessor (package "gcc")'
directory=$(mktemp -d) || exit 1
trap 'rm -rf "$directory"' EXIT
cp "$model" "$directory/model.pml" && cd "$directory" || exit 1

options=
for macro do options="$options -D$macro"; done
# What fails is seen soon; what holds takes a search worth optimising for.
optimisation=-O0 table=18
[ "$expected" = finds ] || optimisation=-O1 table=22
spin $options -a model.pml >spin.log 2>&1 && [ -e pan.c ] || fail "is no model: $(cat spin.log)"
"$compiler" -x c -w $optimisation -DSAFETY -DMEMLIM=4000 -o pan pan.c >compile.log 2>&1 ||
  fail "is no program: $(cat compile.log)"
./pan -m200000 -w$table >search.log 2>&1

has() { grep -qE "$1" search.log; }
has '^Full statespace search' || fail "was not searched: $(cat search.log)"
states=$(awk '/states, stored/ { print $1 }' search.log)
depth=$(sed -n 's/.*depth reached \([0-9]*\).*/\1/p' search.log)
errors=$(sed -n 's/.*errors: \([0-9]*\)$/\1/p' search.log)
case $expected in
  holds)
    [ "$errors" = 0 ] || fail "does not hold: $(cat search.log; spin $options -t -p model.pml)"
    ! has 'max search depth too small|out of memory|resource limit|Search not completed|bit ?state|hash-compact' ||
      fail "was not searched to the end: $(cat search.log)"
    # A statement that is never reached tests nothing. Processes that never end have an end that they never reach.
    unreached=$(grep -E '^[[:space:]]+.*, state [0-9]+, ' search.log | grep -vE '"-end-"$')
    [ -z "$unreached" ] || fail "has statements that are never reached: $unreached"
    echo "$(basename "$model" .pml)$options: $states states, depth $depth, 0 errors"
    ;;
  finds)
    error=$(sed -n 's/^pan:[0-9]*: //p' search.log)
    [ "$errors" = 1 ] || fail "does not find the mistake, in $states states"
    case $error in
      'assertion violated'* | 'invalid end state'*) ;;
      *) fail "finds something else: $error" ;;
    esac
    echo "$(basename "$model" .pml)$options: found after $states states: $error"
    ;;
esac
