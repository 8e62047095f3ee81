#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh benchmarks/scaling.sh [--rounds N]
# How far one parent goes: installs what is missing, builds benchmarks/scaling/, measures on two CPUs what tasks cost and
# how fast up to 64 workers are, and prints what a model makes of it for machines that are larger. Takes two minutes.
set -u
cd "$(dirname "$0")/.." || exit 1
. cmake/packages.sh

install_missing benchmarks default
say 'building procpool_scaling in build/benchmarks' >&2
build benchmarks --target procpool_scaling

cpus=$(taskset -cp $$ | sed 's/.*: //; s/[,-].*//')
exec taskset -c "$cpus,$((cpus + 1))" \
  python3 -B benchmarks/scaling/model.py build/benchmarks/benchmarks/procpool_scaling "$@"
