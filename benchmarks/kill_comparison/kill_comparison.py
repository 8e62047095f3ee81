# SPDX-License-Identifier: BSL-1.0
"""kill_comparison.py PROGRAM [LIBRARY...]: the same kill workload on procpool (PROGRAM, built from
kill_comparison.cpp) and on process pools for Python; prints tables. Each cell, a library under one kind of kill, runs
in a process of its own, which is cut off when it hangs. `kill_comparison.py --cell LIBRARY KIND` is such a process."""
import concurrent.futures
import mmap
import multiprocessing
import os
import resource
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time

WORKERS = 4
TASK = 0.005  # seconds
BOUND = 15  # seconds after the last kill: a task without an outcome by then is lost. (billiard waits 10 s by design.)
CLOSING = 5  # seconds for close() and join(), or what corresponds

# name: tasks, how one dies, which ones die, and in words
KINDS = {
    "busy": (41, "wait_for_kill", lambda i: i == 10, "SIGKILL of a busy worker"),
    "exit": (41, "exit", lambda i: i == 10, "a task calls _exit(0)"),
    "idle": (40, None, lambda i: False, "SIGKILL of all idle workers"),
    "many": (400, "kill", lambda i: i % 40 == 20, "10 SIGKILLs, 400 tasks"),
    "overflow": (41, "overflow", lambda i: i == 10, "stack overflow in a task"),
}

# ---- what runs in the workers ------------------------------------------------------------------------------------

# In a file that all map, also workers that are not forked: when the last kill was, and who waits to be killed.
LAST_DEATH = struct.Struct("d")
VICTIM = struct.Struct("q")
notes = None
born = None

deep = ()  # made before any worker is there: it takes longer than the tasks do
for _ in range(1_000_000):
    deep = (deep,)


def map_notes(path):
    global notes
    with open(path, "r+b") as file:
        notes = mmap.mmap(file.fileno(), 16)


def initialize(path):
    global born
    map_notes(path)
    born = time.monotonic()


def task(how):
    if how == "wait_for_kill":
        VICTIM.pack_into(notes, 8, os.getpid())
        time.sleep(60)
    elif how is not None:
        LAST_DEATH.pack_into(notes, 0, time.monotonic())
        if how == "exit":
            os._exit(0)
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        hash(deep)  # recurses in C
    time.sleep(TASK)
    return born, time.monotonic(), os.getpid()


# ---- the libraries: a pool, how to submit to it, how to wait for an outcome, how to end it -----------------------


class futures_pool:
    """What has submit() or schedule() and hands out concurrent.futures.Future."""

    def submit(self, how):
        return self.pool.submit(task, how)

    def get(self, future, seconds):
        return future.result(seconds)

    def end(self):
        self.pool.shutdown()


class executor(futures_pool):
    def __init__(self, path):
        self.pool = concurrent.futures.ProcessPoolExecutor(WORKERS, initializer=initialize, initargs=(path,))


class loky(futures_pool):
    def __init__(self, path):
        try:
            import loky
        except ImportError:
            from joblib.externals import loky
        self.pool = loky.ProcessPoolExecutor(WORKERS, initializer=initialize, initargs=(path,))


class pebble(futures_pool):
    def __init__(self, path):
        from pebble import ProcessPool

        self.pool = ProcessPool(WORKERS, initializer=initialize, initargs=(path,))

    def submit(self, how):
        return self.pool.schedule(task, args=(how,))

    def end(self):
        self.pool.close()
        self.pool.join()


class python_pool:
    Timeout = multiprocessing.TimeoutError

    def __init__(self, path):
        self.pool = multiprocessing.Pool(WORKERS, initialize, (path,))

    def submit(self, how):
        return self.pool.apply_async(task, (how,))

    def get(self, result, seconds):
        try:
            return result.get(seconds)
        except self.Timeout:
            raise concurrent.futures.TimeoutError

    def end(self):
        self.pool.close()
        self.pool.join()


class billiard_pool(python_pool):
    def __init__(self, path):
        import billiard

        self.Timeout = billiard.TimeoutError
        self.pool = billiard.Pool(WORKERS, initialize, (path,))


LIBRARIES = {
    "procpool": None,
    "multiprocessing.Pool": python_pool,
    "ProcessPoolExecutor": executor,
    "loky": loky,
    "Pebble": pebble,
    "billiard": billiard_pool,
}

# ---- the workload, as in kill_comparison.cpp ---------------------------------------------------------------------


def kill(pid):
    LAST_DEATH.pack_into(notes, 0, time.monotonic())
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # the library has ended it because of an earlier kill


def wave(pool, deadline):
    """One task for each worker, at a time; their answers. None if the pool takes nothing any more."""
    try:
        sent = [pool.submit(None) for _ in range(WORKERS)]
        return [pool.get(each, max(0.01, deadline - time.monotonic())) for each in sent]
    except Exception:
        return None


def cell(library, kind):
    tasks, how, is_killed, _ = KINDS[kind]
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(16))
        file.flush()
        map_notes(file.name)
        pool = LIBRARIES[library](file.name)
        workload(pool, tasks, how, is_killed)
        pool.end()
        print("ended", flush=True)


def workload(pool, tasks, how, is_killed):
    if how is None:
        idle = set()
        begun = time.monotonic()
        while len(idle) != WORKERS:
            idle.update(pid for _, _, pid in wave(pool, time.monotonic() + BOUND) or [])
            if time.monotonic() > begun + BOUND:
                sys.exit("the pool did not start its workers")
        for pid in sorted(idle):
            time.sleep(0.1)
            kill(pid)

    sent = []
    for i in range(tasks):
        try:
            sent.append(pool.submit(how if is_killed(i) else None))
        except Exception as failure:
            sent.append(failure)
    if how == "wait_for_kill":
        begun = time.monotonic()
        while VICTIM.unpack_from(notes, 8)[0] == 0:
            time.sleep(0.001)
            if time.monotonic() > begun + BOUND:
                sys.exit("the task that is to be killed did not start")
        time.sleep(0.01)
        kill(VICTIM.unpack_from(notes, 8)[0])

    deadline = time.monotonic() + BOUND
    killed = told = lost = collateral = 0
    answers = []
    for i, each in enumerate(sent):
        killed += is_killed(i)
        try:
            if isinstance(each, Exception):
                raise each
            answers.append(pool.get(each, max(0.01, deadline - time.monotonic())))
        except concurrent.futures.TimeoutError:
            lost += 1
        except BaseException:
            told += is_killed(i)
            collateral += not is_killed(i)

    def recovery():
        last = LAST_DEATH.unpack_from(notes, 0)[0]
        return min((end - last for birth, end, _ in answers if birth > last), default=None)

    while recovery() is None and time.monotonic() < deadline:
        more = wave(pool, deadline)
        if more is None:
            break
        answers += more
    recovered = recovery()
    recovered_ms = -1 if recovered is None else recovered * 1000
    counts = f"killed={killed} told={told} lost={lost} collateral={collateral}"
    print(f"{counts} recovered_ms={recovered_ms:.1f}", flush=True)


# ---- the tables --------------------------------------------------------------------------------------------------


def run_cell(program, library, kind):
    """The numbers that the cell prints, and `hung`: whether it had to be cut off."""
    command = [program, kind] if library == "procpool" else [sys.executable, "-B", __file__, "--cell", library, kind]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    selector.register(process.stderr, selectors.EVENT_READ)
    said = {process.stdout: b"", process.stderr: b""}
    deadline = time.monotonic() + 2 * BOUND
    while b"ended\n" not in said[process.stdout] and selector.get_map():
        events = selector.select(max(0, deadline - time.monotonic()))
        if not events:
            break
        for key, _ in events:
            more = os.read(key.fileobj.fileno(), 65536)
            if not more:
                selector.unregister(key.fileobj)
            elif b"\n" in more and key.fileobj is process.stdout:
                deadline = time.monotonic() + CLOSING
            said[key.fileobj] += more
    ended = b"ended\n" in said[process.stdout]
    try:
        process.wait(CLOSING if ended else 0.1)
    except subprocess.TimeoutExpired:
        ended = False
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what is left of the session
    except ProcessLookupError:
        pass
    process.wait()
    numbers = said[process.stdout].split(b"\n")[0].decode()
    if "killed=" not in numbers and not (said[process.stdout] == b"" and process.returncode == -signal.SIGKILL):
        sys.exit(f"{library}, {kind}: no numbers; {said[process.stderr].decode()}")
    result = {"killed": 0, "told": 0, "lost": KINDS[kind][0], "collateral": 0, "recovered_ms": -1}
    result.update({name: float(value) for name, value in (pair.split("=") for pair in numbers.split())})
    result["hung"] = not ended or result["lost"] > 0
    return result


def markdown(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for number, row in enumerate(rows):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def recovered_text(result):
    ms = result["recovered_ms"]
    return "never" if ms < 0 else f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.0f} s"


def main(program, libraries):
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # writing them would be measured too
    results = {}

    def run_library(library):
        for kind in KINDS:
            results[library, kind] = run_cell(program, library, kind)

    # procpool alone, then the others side by side: most of their time they hang.
    with concurrent.futures.ThreadPoolExecutor() as together:
        if "procpool" in libraries:
            run_library("procpool")
        for done in [together.submit(run_library, each) for each in libraries if each != "procpool"]:
            done.result()

    print(f"{WORKERS} workers, tasks of {TASK * 1000:.0f} ms. lost: tasks without an outcome {BOUND} s after the kill.")
    print("hung: the run had to be cut off. collateral: tasks that failed without being killed.")
    print("told: killed tasks that ended in an error.")
    print("recovered: from the (last) kill to the first task completed by a worker that was started after it.\n")
    rows = [["kill", "library", "tasks", "lost", "hung", "collateral", "told", "recovered"]]
    for kind, (tasks, _, _, words) in KINDS.items():
        for library in libraries:
            r = results[library, kind]
            rows.append(
                [words, library, str(tasks), f"{r['lost']:.0f}", "yes" if r["hung"] else "no", f"{r['collateral']:.0f}"]
                + [f"{r['told']:.0f} of {r['killed']:.0f}", recovered_text(r)]
            )
    markdown(rows)

    print("\nThe same in short: lost / hung / collateral, time to recover\n")
    rows = [["kill"] + libraries]
    for kind, (_, _, _, words) in KINDS.items():
        row = [words]
        for library in libraries:
            r = results[library, kind]
            hung = "yes" if r["hung"] else "no"
            row.append(f"{r['lost']:.0f} / {hung} / {r['collateral']:.0f}, {recovered_text(r)}")
        rows.append(row)
    markdown(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--cell"]:
        import kill_comparison  # workers that are not forked import the tasks from a module

        kill_comparison.cell(*sys.argv[2:])
    elif len(sys.argv) >= 2 and all(name in LIBRARIES for name in sys.argv[2:]):
        main(os.path.abspath(sys.argv[1]), sys.argv[2:] or list(LIBRARIES))
    else:
        sys.exit(f"usage: kill_comparison.py PROGRAM [{'|'.join(LIBRARIES)}]...")
