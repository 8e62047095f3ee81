# SPDX-License-Identifier: BSL-1.0
# Read by demo.sh, test.sh and those in benchmarks/: what they need, installed where it is missing, and how they build.

# say TEXT: one line on what is being done
say() { printf '== %s\n' "$*"; }

# fail TEXT: the reason, and the end
fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# ---- installing what is missing ----------------------------------------------------------------------------------------

# need PACKAGE WHAT: to be installed, because there is no WHAT
need() {
  case "$missing " in *" $1 "*) return ;; esac
  missing="$missing $1"
  reasons="$reasons
     $1: no $2 found"
}

cmake_is_recent() {
  have cmake && cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || v[1] == 3 && v[2] >= 25) }'
}

# compiler_sees CONDITION...: whether each holds for the preprocessor
compiler_sees() {
  for condition do
    printf '#if __has_include(<boost/version.hpp>)\n#include <boost/version.hpp>\n#endif\n#if !(%s)\n#error no\n#endif\n' \
      "$condition" | $compiler $include_options -std=c++20 -E -x c++ - >/dev/null 2>&1 || return 1
  done
}

# boost_package: the name of the package that has Boost 1.81 or newer
boost_package() {
  candidate=$(apt-cache policy libboost-dev 2>/dev/null | awk '/Candidate:/ { print $2 }')
  if [ -n "$candidate" ] && dpkg --compare-versions "$candidate" ge 1.81 2>/dev/null; then
    echo libboost-dev
  else
    echo libboost1.81-dev
  fi
}

# python_for_comparison: a Python that has the pools of benchmarks/kill_comparison; fails if there is none
python_for_comparison() {
  for candidate in "${PYTHON:-python3}" /usr/bin/python3; do
    if "$candidate" -c 'import billiard, joblib.externals.loky, pebble' 2>/dev/null; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# find_missing tests|demo|comparison|benchmarks COMPILER...: sets missing and reasons. It asks for the things themselves and not for
# packages: they may come from elsewhere. COMPILER is default, the system's or CXX, or clang.
find_missing() {
  purpose=$1
  shift
  missing='' reasons=''
  compiler=
  for kind do
    case $kind in
      default)
        compiler=${CXX:-c++}
        if ! have "$compiler"; then
          need g++ 'C++ compiler'
          compiler=
        fi
        ;;
      clang)
        # The sanitizers' libraries come in a package of their own.
        if have clang++-19; then
          compiler=${compiler:-clang++-19}
          [ -e "$(clang++-19 -print-file-name=libclang_rt.tsan-$(uname -m).a)" ] ||
            [ -e "$(clang++-19 -print-runtime-dir 2>/dev/null)/libclang_rt.tsan.a" ] ||
            need libclang-rt-19-dev 'sanitizer library for clang 19'
        else
          need clang-19 clang++-19
          need libclang-rt-19-dev 'sanitizer library for clang 19'
        fi
        ;;
    esac
  done
  cmake_is_recent || need cmake 'CMake 3.25 or newer'
  have ninja || have make || need ninja-build 'ninja or make'

  include_options=$(echo "${CMAKE_PREFIX_PATH-}" | tr ':' '\n' | sed -n 's|..*|-I&/include|p')
  if [ -z "$compiler" ] || ! compiler_sees 'defined BOOST_VERSION && BOOST_VERSION >= 108100'; then
    need "$(boost_package)" 'Boost 1.81 or newer'
  fi
  if [ -z "$compiler" ] || ! compiler_sees '__has_include(<cereal/cereal.hpp>)'; then
    need libcereal-dev 'cereal'
  fi
  if [ "$purpose" = tests ]; then
    have objdump || need binutils objdump
    if [ -z "$compiler" ] ||
      ! compiler_sees '__has_include(<catch2/catch.hpp>) || __has_include(<catch2/catch_all.hpp>)'; then
      need catch2 'Catch2'
    fi
    have spin || need spin 'spin (which checks the models of the protocol)'
    have gcc || need gcc 'gcc (the preprocessor of spin)'
    have strace || need strace 'strace'
    have valgrind || need valgrind 'valgrind'
    have python3 || need python3 'python3'
  fi
  if [ "$purpose" = comparison ] && ! python_for_comparison >/dev/null; then
    need python3 'Python that has what follows'
    need python3-joblib 'joblib, which has loky'
    need python3-pebble 'Pebble'
    need python3-billiard 'billiard'
  fi
  if [ "$purpose" = benchmarks ]; then
    if [ -z "$compiler" ] || ! compiler_sees '__has_include(<oneapi/tbb.h>)'; then
      need libtbb-dev 'oneTBB'
    fi
    have python3 || need python3 'python3'
  fi
}

# install_missing tests|demo|comparison|benchmarks COMPILER...: nothing, at no cost, if all is there
install_missing() {
  find_missing "$@"
  [ -n "$missing" ] || return 0

  if ! have apt-get || ! grep -qE '^ID(_LIKE)?=.*(debian|ubuntu)' /etc/os-release 2>/dev/null; then
    fail "on Debian 12 these packages would be installed now; here, please install the like of them:$reasons"
  fi
  as_root='env'
  if [ "$(id -u)" -ne 0 ]; then
    have sudo || fail "neither root nor sudo; please install these packages:$reasons"
    as_root='sudo env'
  fi

  say "installing with ${as_root%env}apt-get:$reasons"
  log=$(mktemp)
  $as_root apt-get -qq update >"$log" 2>&1 || say 'not all package lists could be updated; going on with what is there'
  find_missing "$@"  # the lists may have changed what there is to choose
  # --no-remove: a package that would push out another, such as another Boost, is the user's decision.
  if ! $as_root DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install \
    --yes --no-install-recommends --no-remove $missing >>"$log" 2>&1 </dev/null; then
    cat "$log" >&2
    rm -f "$log"
    fail "apt-get could not install$missing"
  fi
  rm -f "$log"
  find_missing "$@"
  [ -z "$missing" ] || fail "still missing after the installation:$reasons"
}

# ---- building ----------------------------------------------------------------------------------------------------------

# parallel_jobs: how many compilers at a time; each may take 1.5 GiB
parallel_jobs() {
  cpus=$(nproc 2>/dev/null || echo 1)
  fitting=$(awk '/^MemAvailable:/ { print int($2 / 1572864) }' /proc/meminfo)
  if [ "${fitting:-1}" -lt "$cpus" ]; then
    cpus=$fitting
  fi
  if [ "${cpus:-0}" -lt 1 ]; then
    cpus=1
  fi
  echo "$cpus"
}

# quietly COMMAND...: its output is shown only if it fails, without the lines about steps that went well
quietly() {
  output=$(mktemp)
  if ! "$@" >"$output" 2>&1 </dev/null; then
    grep -v '^\[ *[0-9]' "$output" >&2
    rm -f "$output"
    return 1
  fi
  rm -f "$output"
}

# build PRESET [OPTION...]: configures build/PRESET and builds it; OPTION is for cmake --build
build() {
  preset=$1
  shift
  generator=
  if [ ! -e "build/$preset/CMakeCache.txt" ] && have ninja; then
    generator='-GNinja'
  fi
  quietly cmake --preset "$preset" $generator || fail "configuring build/$preset failed"
  if [ -t 1 ]; then
    cmake --build --preset "$preset" --parallel "$(parallel_jobs)" "$@" || fail "building build/$preset failed"
  else
    quietly cmake --build --preset "$preset" --parallel "$(parallel_jobs)" "$@" || fail "building build/$preset failed"
  fi
}
