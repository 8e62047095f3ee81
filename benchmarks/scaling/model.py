#!/usr/bin/env python3
# SPDX-License-Identifier: BSL-1.0
"""model.py PROGRAM [--rounds N]: has PROGRAM (procpool_scaling) measure what tasks cost, checks what a model and a
simulation make of that by what it measures with 1 to 64 workers, and prints, in Markdown, how far one parent goes.

The model: a parent pays `parent` seconds for a task, which grows with the number of workers among which it chooses; a
worker is busy for `task` seconds with one. N workers do min(N / task, 1 / parent(N)) tasks a second.
"""
import argparse
import heapq
import json
import os
import statistics
import subprocess
import sys
from collections import deque

WORKERS = (1, 2, 4, 8, 16, 32, 64)
CORES = (16, 64, 256)


def measure(program, rounds):
    """The median and the range of each result, in seconds and 1/s."""
    values = {}
    for _ in range(rounds):
        output = subprocess.run([program], stdout=subprocess.PIPE, text=True, check=True).stdout
        for row in map(json.loads, output.splitlines()):
            factor = 1e-9 if row["unit"] == "ns" else 1
            values.setdefault(row["job"], []).append(row["value"] * factor)
    return {job: (statistics.median(all_of_it), min(all_of_it), max(all_of_it)) for job, all_of_it in values.items()}


def line_through(points):
    """The line of least squares: its value at 0 and its slope."""
    xs, ys = zip(*points)
    x, y = statistics.mean(xs), statistics.mean(ys)
    slope = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a in xs)
    return y - slope * x, slope


def simulate(workers, task, submit, collect, ahead, tasks):
    """Tasks a second. One parent submits, to the worker that has least to do, while fewer than `ahead` tasks have not
    been collected, and collects before it submits; each worker runs what it was given in order."""
    now = 0.0
    free_at = [0.0] * workers       # when each has run all that it has
    waiting = [0] * workers         # what each has and has not been collected
    running = []                    # (end, worker)
    submitted = collected = 0
    ready = deque()
    while collected != tasks:
        while running and running[0][0] <= now:
            ready.append(heapq.heappop(running)[1])
        if ready:
            waiting[ready.popleft()] -= 1
            collected += 1
            now += collect
        elif submitted != tasks and submitted - collected < ahead:
            now += submit
            chosen = min(range(workers), key=waiting.__getitem__)
            waiting[chosen] += 1
            free_at[chosen] = max(now, free_at[chosen]) + task
            heapq.heappush(running, (free_at[chosen], chosen))
            submitted += 1
        else:
            now = running[0][0]
    return tasks / now


def table(header, rows):
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def workers_in_words(n):
    return "1 worker" if n == 1 else f"{n} workers"


def micro(seconds):
    return f"{seconds * 1e6:.2g} µs" if seconds * 1e6 < 100 else f"{seconds * 1e6:.0f} µs"


def thousands(rate):
    return f"{rate / 1e3:.3g}"


def report(found):
    cost = {job: median for job, (median, _, _) in found.items()}
    per_workers = [(n, cost[f"submit-{n}"] + cost[f"collect-{n}"]) for n in WORKERS]
    fixed, each = line_through(per_workers)
    each = max(each, 0.0)

    def parent(workers):
        return fixed + each * workers

    yield "What one task costs, in processor time:"
    yield ""
    yield from table(["", "median", "range"], [
        [name, f"{median * 1e9:.0f} ns", f"{least * 1e9:.0f} to {most * 1e9:.0f}"]
        for name, job in [
            *[(f"parent, `apply_async`, {workers_in_words(n)}: submitting", f"submit-{n}") for n in WORKERS],
            *[(f"parent, `apply_async`, {workers_in_words(n)}: collecting", f"collect-{n}") for n in WORKERS],
            ("worker, a task that reads the clock", "worker"),
            ("parent, an element of a `map` of int", "element-parent"),
            ("worker, an element that reads the clock", "element-worker"),
        ]
        for median, least, most in [found[job]]
    ])
    yield ""
    yield f"The parent's line: {fixed * 1e9:.0f} ns + {each * 1e9:.1f} ns for each worker."
    yield ""
    yield "Thousands of tasks a second, of tasks that sleep for 1 ms, by `imap_unordered`:"
    yield ""
    task = 1 / cost["sleepers-1"]
    rows = []
    for kind, inputs in (("sleepers", 0.0), ("slow-inputs", cost["input"])):
        for n in WORKERS:
            name = workers_in_words(n) + (f", inputs of {micro(inputs)}" if inputs else "")
            model = min(n / task, 1 / (inputs + parent(n)))
            simulated = simulate(n, task, inputs + cost[f"submit-{n}"], cost[f"collect-{n}"], 4 * n, 300 * n)
            median, least, most = found[f"{kind}-{n}"]
            rows.append([name, thousands(model), thousands(simulated),
                         f"{thousands(median)} ({thousands(least)} to {thousands(most)})", f"{median / simulated:.2f}"])
    yield from table(["", "model", "simulated", "measured", "measured / simulated"], rows)
    yield ""
    yield "Where one submitting thread is the limit:"
    yield ""
    rows = []
    for n in CORES:
        least = n * parent(n)
        simulated = simulate(n, least, parent(n) / 2, parent(n) / 2, 4 * n, 100 * n) * least / n
        rows.append([str(n), f"{1 / parent(n) / 1e6:.2g} million", micro(least), f"{simulated:.0%}",
                     micro(n * cost["element-parent"])])
    yield from table(["workers, a core each", "tasks a second at most", "shortest task that keeps all busy",
                      "busy then, simulated", "shortest element of a chunked `map`"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    print(f"{cpus} CPUs, load {os.getloadavg()[0]:.1f} at the start, {asked.rounds} rounds\n")
    sys.stdout.flush()
    print("\n".join(report(measure(asked.program, asked.rounds))))


if __name__ == "__main__":
    main()
