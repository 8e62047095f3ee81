# SPDX-License-Identifier: BSL-1.0
"""smoke_test.py DIRECTORY: every job of procpool_bench and every peer in DIRECTORY ends well and prints results that
compare.py and others can read."""
import json
import math
import os
import subprocess
import sys

from compare import GROUPS, OWN, programs
from goals import GOALS

FIELDS = {"impl": str, "job": str, "metric": str, "value": (int, float), "unit": str}


def rows_of(command):
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    for line in output.splitlines():
        row = json.loads(line)
        if row["metric"] == "note":
            continue
        assert set(row) == set(FIELDS) and all(isinstance(row[name], kind) for name, kind in FIELDS.items()), line
        assert math.isfinite(row["value"]) and row["value"] >= 0, line
        yield row


def main():
    keys = set()
    for name, command, groups in programs(sys.argv[1]):
        jobs = subprocess.check_output([*command, "--list"], text=True).split() if name == OWN else []
        for group in groups:
            rows = [(row["impl"], row["job"], row["metric"]) for row in rows_of([*command, group])]
            assert rows, f"{name} {group} has no results"
            for job in jobs:
                if job == group or job.startswith(group + "-"):
                    assert any(impl == OWN and each.startswith(job) for impl, each, _ in rows), f"{job} has no results"
            keys.update(rows)
        assert name != OWN or {job.split("-")[0] for job in jobs} == set(GROUPS)
    one_cpu = len(os.sched_getaffinity(0)) < 2
    for job, metric, _, _, reference in GOALS:
        assert one_cpu or (OWN, job, metric) in keys, f"nothing to judge {job} {metric} by"
        assert one_cpu or reference is None or reference in keys, f"nothing to compare {job} with: {reference}"
    print(f"{len(keys)} kinds of results")


main()
