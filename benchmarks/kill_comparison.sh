#!/bin/sh
# SPDX-License-Identifier: BSL-1.0
# sh benchmarks/kill_comparison.sh [LIBRARY...]
# What a kill costs: installs what is missing, builds procpool's part, runs the same kill workload on procpool and on
# five process pools for Python, and prints tables. Takes about two minutes.
set -u
cd "$(dirname "$0")/.." || exit 1
. cmake/packages.sh

install_missing comparison default
say 'building benchmarks/kill_comparison/kill_comparison.cpp in build/demo'
build demo --target kill_comparison

python=$(python_for_comparison) || fail 'no Python that has all the libraries'
say "$("$python" --version), joblib (with loky), Pebble and billiard: $("$python" -c '
import billiard, joblib
from importlib.metadata import version
print(joblib.__version__, version("pebble"), billiard.__version__, sep=", ")'); $(nproc) CPUs, Linux $(uname -r)"
exec "$python" -B benchmarks/kill_comparison/kill_comparison.py build/demo/benchmarks/kill_comparison "$@"
