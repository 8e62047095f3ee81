# SPDX-License-Identifier: BSL-1.0
"""compare.py DIRECTORY [OPTION...] [JOB...]: runs procpool_bench and its peers, built in DIRECTORY, and prints tables
in Markdown. compare.sh builds and calls it."""
import argparse
import ctypes
import json
import os
import platform
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import time

from goals import GOALS

HERE = os.path.dirname(os.path.abspath(__file__))
GROUPS = [f"J{i}" for i in range(1, 11)]
OWN = "procpool"
# Rounds in which other processes took more than this share of a processor count only where there are no others.
CALM = 0.25
SUMMARIES = ("mean", "p99")  # in the rows, not in the tables
LONGEST = 300  # seconds for one group of jobs of one program

PEERS = {  # impl: (the head of its column, program, what it can do)
    "condvar-pool": ("mutex + condvar thread pool", ["thread_pool_bench"], "J1 J2 J3 J4 J5 J6 J7"),
    "tbb": ("oneTBB", ["onetbb_bench"], "J1 J2 J3 J5 J7"),
    "mq-pool": ("Boost message_queue", ["message_queue_bench"], "J1 J2"),
    "py-mp.Pool": ("Python Pool", ["python_pools.py", "Pool"], "J1 J2 J3 J4 J5 J6 J7 J8 J9"),
    "py-ProcessPoolExecutor": (
        "ProcessPoolExecutor", ["python_pools.py", "ProcessPoolExecutor"], "J1 J2 J3 J4 J5 J6 J7 J8 J9"),
}


# ---- running -------------------------------------------------------------------------------------------------------
def programs(directory):
    """(name, command, groups) of procpool and of each peer that is built."""
    yield OWN, [os.path.join(directory, "procpool_bench")], GROUPS
    for impl, (_, command, groups) in PEERS.items():
        if command[0].endswith(".py"):
            yield impl, [sys.executable, "-B", os.path.join(HERE, "peers", command[0]), *command[1:]], groups.split()
        elif os.path.exists(path := os.path.join(directory, command[0])):
            yield impl, [path], groups.split()
        else:
            print(f"== {impl} is not built", file=sys.stderr)


def busy_seconds():
    """Of all processors, by any process."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def adopt_orphans():
    """What procpool forks is nobody's child; as ours, its time is known to be no stranger's."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def reap_orphans():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def own_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(name, command, group, environment):
    """The rows that it prints, each with the processors that other processes took meanwhile."""
    own, busy, begin = own_seconds(), busy_seconds(), time.monotonic()
    process = subprocess.Popen(
        [*command, group], stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=LONGEST)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        print(f"== {name} {group} was killed after {LONGEST} s", file=sys.stderr)
    if process.returncode != 0:
        print(f"== {name} {group} ended with {process.returncode}", file=sys.stderr)
    taken = time.monotonic() - begin
    reap_orphans()
    strangers = max(0.0, (busy_seconds() - busy) - (own_seconds() - own)) / taken
    rows = []
    for line in output.splitlines():
        try:
            rows.append({**json.loads(line), "strangers": round(strangers, 2)})
        except ValueError:
            print(f"== {name} {group} printed: {line}", file=sys.stderr)
    return rows


def measure(directory, groups, rounds, environment):
    adopt_orphans()
    all_programs = list(programs(directory))
    rows = []
    for number in range(rounds):
        order = random.Random(number)
        begin = time.monotonic()
        for group in order.sample(groups, len(groups)):
            able = [program for program in all_programs if group in program[2]]
            for name, command, _ in order.sample(able, len(able)):
                rows += [{**row, "round": number} for row in run(name, command, group, environment)]
        print(f"== round {number + 1} of {rounds}: {time.monotonic() - begin:.0f} s", file=sys.stderr)
    return rows


# ---- tables --------------------------------------------------------------------------------------------------------
class Results:
    """The values of each (impl, job, metric) by round."""

    def __init__(self, rows):
        self.values, self.units, self.notes = {}, {}, []
        calm = {self.key(row) for row in rows if row["strangers"] <= CALM}
        self.disturbed = 0
        for row in rows:
            key = self.key(row)
            if row["metric"] == "note":
                self.notes.append(f"{row['impl']}, {row['job']}: {row['value']}")
            elif key in calm and row["strangers"] > CALM:
                self.disturbed += 1
            else:
                self.values.setdefault(key, {}).setdefault(row["round"], []).append(row["value"])
                self.units[key[1:]] = row["unit"]
        self.uncalm = sum(self.key(row) not in calm for row in rows)

    @staticmethod
    def key(row):
        impl = "mq-pool" if row["impl"].endswith("-mq-pool") else row["impl"]  # with Boost's version in front
        return impl, row["job"], row["metric"]

    def all(self, key):
        return [value for each in self.values.get(key, {}).values() for value in each]

    def median(self, key):
        return statistics.median(self.all(key)) if key in self.values else None

    def spread(self, key):
        return f"{number(min(self.all(key)))} … {number(max(self.all(key)))}"

    def ratios(self, key, reference):
        """Round by round where there are rounds with both; else of the medians."""
        own, other = self.values.get(key, {}), self.values.get(reference, {})
        both = [statistics.median(own[r]) / statistics.median(other[r]) for r in own if r in other and any(other[r])]
        if not both and own and other and self.median(reference):
            both = [self.median(key) / self.median(reference)]
        return both


def number(value):
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"


def table(head, lines):
    if not lines:
        return
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for line in lines:
        print("| " + " | ".join(line) + " |")
    print()


def in_order(job_and_metric):
    """J2 before J10."""
    job, metric = job_and_metric
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", job)], metric


def smaller_is_better(metric):
    return metric not in ("rate", "bw", "efficiency")


def named(job, metric, unit):
    return f"{job} {metric}" + (f", {unit}" if unit else "")


def goals_table(results):
    lines, met = [], 0
    for job, metric, sign, factor, reference in GOALS:
        key = (OWN, job, metric)
        if not results.all(key) or (reference and not results.all(reference)):
            continue
        judged = results.ratios(key, reference) if reference else results.all(key)
        if not judged:
            continue
        value = statistics.median(judged)
        good = value <= factor if sign == "<=" else value >= factor
        met += good
        lines.append([
            named(job, metric, results.units[job, metric]),
            number(results.median(key)),
            results.spread(key),
            " ".join(reference[:2]) if reference else "",
            number(results.median(reference)) if reference else "",
            f"{number(value)} ×" if reference else "",
            sign.replace("<=", "≤").replace(">=", "≥") + f" {number(factor)}" + (" ×" if reference else ""),
            "met" if good else "**missed**",
        ])
    table(["procpool", "median", "range", "beside", "median", "ratio", "goal", ""], lines)
    if lines:
        print(f"{met} of {len(lines)} goals met.\n")


def peers_table(results):
    heads = {impl: head for impl, (head, *_) in PEERS.items() if any(key[0] == impl for key in results.values)}
    lines = []
    keys = {key[1:] for key in results.values if key[0] in PEERS and key[2] not in SUMMARIES}
    for job, metric in sorted(keys, key=in_order):
        own = results.median((OWN, job, metric))
        cells = [named(job, metric, results.units[job, metric]), number(own) if own is not None else ""]
        for impl in heads:
            key = (impl, job, metric)
            cell = number(results.median(key)) if results.all(key) else ""
            if ratios := cell and results.ratios((OWN, job, metric), key):
                ratio = statistics.median(ratios)
                cell += f" ({number(1 / ratio if smaller_is_better(metric) and ratio else ratio)} ×)"
            cells.append(cell)
        lines.append(cells)
    table(["", "procpool", *heads.values()], lines)


def others_table(results):
    """What has neither goal nor peer."""
    with_goal = {goal[:2] for goal in GOALS} | {key[1:] for key in results.values if key[0] in PEERS}
    own = {key[1:] for key in results.values if key[0] == OWN and key[2] not in SUMMARIES}
    lines = []
    for job, metric in sorted(own - with_goal, key=in_order):
        key = (OWN, job, metric)
        lines.append([named(job, metric, results.units[job, metric]), number(results.median(key)), results.spread(key)])
    table(["also", "median", "range"], lines)


def machine():
    with open("/proc/cpuinfo") as file:
        model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), platform.machine())
    cpus = len(os.sched_getaffinity(0))
    return f"{cpus} CPUs ({model}), Linux {platform.release()}, Python {platform.python_version()}"


def report(record):
    results = Results(record["rows"])
    size = f"scale {record['scale']:g}" + (", full" if record["full"] else "")
    rounds = f"{record['rounds']} round" + ("s" if record["rounds"] > 1 else "")
    print(f"{record['machine']}; {rounds}, {size}, {record['seconds'] / 60:.1f} min.\n")
    goals_table(results)
    print("Beside peers: medians, and in brackets how many times better procpool is.\n")
    peers_table(results)
    others_table(results)
    for note in sorted(set(results.notes)):
        print(f"- {note}")
    if results.disturbed or results.uncalm:
        print(f"\nOther processes disturbed {results.disturbed + results.uncalm} of {len(record['rows'])} results; "
              f"{results.disturbed} were left out for calmer rounds, {results.uncalm} had none and count.")


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("directory", nargs="?")
    options.add_argument("jobs", nargs="*", metavar="JOB")
    options.add_argument("--quick", action="store_true", help="a tenth of the repetitions, one round")
    options.add_argument("--full", action="store_true", help="the largest sizes, five rounds")
    options.add_argument("--rounds", type=int)
    options.add_argument("--report", metavar="FILE", help="print the tables of an earlier run, and measure nothing")
    asked = options.parse_intermixed_args()
    if asked.report:
        with open(asked.report) as file:
            return report(json.load(file))
    if wrong := set(asked.jobs) - set(GROUPS):
        options.error(f"no job {', '.join(sorted(wrong))}; there are {', '.join(GROUPS)}")

    scale = float(os.environ.get("BENCH_SCALE", 0.1 if asked.quick else 1))
    full = asked.full or os.environ.get("BENCH_FULL") == "1"
    rounds = asked.rounds or (1 if asked.quick else 5 if full else 3)
    environment = {**os.environ, "BENCH_SCALE": str(scale), "BENCH_FULL": "1" if full else "0"}
    begin = time.monotonic()
    rows = measure(asked.directory, asked.jobs or GROUPS, rounds, environment)
    record = {"machine": machine(), "rounds": rounds, "scale": scale, "full": full,
              "seconds": time.monotonic() - begin, "rows": rows}
    path = os.path.join(asked.directory, "results.json")
    with open(path, "w") as file:
        json.dump(record, file, indent=0)
    report(record)
    print(f"== all results: {path}; compare.py --report {path} prints this again", file=sys.stderr)


if __name__ == "__main__":
    main()
