#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh benchmarks/compare.sh [--quick] [--full] [--rounds N] [JOB...]
# How fast procpool is beside what the system itself costs, and beside other pools: installs what is missing, builds
# all of it, runs it in interleaved rounds and prints tables. JOB is one of J1 … J10; default: all. --quick takes a
# tenth of the repetitions once, --full the largest sizes in five rounds. Takes about ten minutes.
set -u
cd "$(dirname "$0")/.." || exit 1
. cmake/packages.sh

install_missing benchmarks default
say 'building the benchmarks in build/benchmarks' >&2
build benchmarks

exec python3 -B benchmarks/compare.py build/benchmarks/benchmarks "$@"
