#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh cmake/test.sh [PRESET...] [-- CTEST_OPTION...]
# Installs what is missing, builds procpool's tests and examples, and runs them all, with each PRESET of
# CMakePresets.json (default: "default", the system's compiler).
set -u
cd "$(dirname "$0")/.." || exit 1
. cmake/packages.sh

presets=
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  presets="$presets $1"
  shift
done
[ $# -eq 0 ] || shift
presets=${presets:-default}

compilers=
for preset in $presets; do
  case $preset in
    default | release) compilers="$compilers default" ;;
    asan | clang | tsan | fuzz) compilers="$compilers clang" ;;
    *) fail "no preset $preset; there are default, release, asan, clang, tsan and fuzz" ;;
  esac
done
install_missing tests $compilers

status=0
for preset in $presets; do
  say "$preset: building the tests in build/$preset"
  begun=$(date +%s)
  build "$preset"

  say "$preset: running them (built in $(($(date +%s) - begun)) s)"
  log=build/$preset/ctest.log
  if [ -t 1 ]; then
    ctest --preset "$preset" --parallel "$(nproc)" --no-label-summary --progress "$@" </dev/null || status=1
  else
    ctest --preset "$preset" --parallel "$(nproc)" --no-label-summary "$@" >"$log" 2>&1 </dev/null || status=1
    grep -vE '^ *(Start +[0-9]+: |[0-9]+/[0-9]+ Test +#[0-9]+: .* Passed )|^(Test project|Preset|Internal ctest)|^$' "$log"
  fi
  # What a test that has passed has to say.
  grep '^Cheaper by more than' "build/$preset/Testing/Temporary/LastTest.log"
  [ $status -eq 0 ] || fail "$preset: tests failed; again by: sh cmake/test.sh $preset -- --rerun-failed"
done
