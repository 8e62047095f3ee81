# SPDX-License-Identifier: BSL-1.0
"""python_pools.py Pool|ProcessPoolExecutor [JOB...]: the jobs of procpool_bench on the pools of Python's library."""
import array
import json
import math
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor

SCALE = float(os.environ.get("BENCH_SCALE", "1"))
FULL = os.environ.get("BENCH_FULL") == "1"
WORKERS = 2
LONGEST_WAIT = 3  # seconds, for what may never come
now = time.perf_counter


def scaled(count, least=1):
    return max(least, int(count * SCALE))


# ---- tasks ---------------------------------------------------------------------------------------------------------
def increment(x):
    return x + 1


def burn(steps):
    total = 0
    for _ in range(steps):
        total += 1
    return total


def ends(values):
    return values[0] + values[-1]


def ones(count):
    return array.array("d", [1.0]) * count


def tell_pid_and_burn(path):
    with open(path + ".new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(path + ".new", path)
    while True:
        pass


def pid_of_worker(_):
    return os.getpid()


# ---- the two pools, by the same names ------------------------------------------------------------------------------
class Pool:
    name = "py-mp.Pool"

    def __init__(self, workers):
        self.pool = multiprocessing.get_context("fork").Pool(workers)

    def apply(self, function, x):
        return self.pool.apply(function, (x,))

    def submit(self, function, x):
        return self.pool.apply_async(function, (x,))

    def get(self, result, timeout=None):
        return result.get(timeout)

    def map(self, function, values, chunksize=None):
        return self.pool.map(function, values, chunksize)

    def close(self):
        self.pool.close()
        self.pool.join()


class Executor:
    name = "py-ProcessPoolExecutor"

    def __init__(self, workers):
        self.pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork"))

    def apply(self, function, x):
        return self.pool.submit(function, x).result()

    def submit(self, function, x):
        return self.pool.submit(function, x)

    def get(self, result, timeout=None):
        return result.result(timeout)

    def map(self, function, values, chunksize=None):
        return list(self.pool.map(function, values, chunksize=chunksize or 1))

    def close(self):
        self.pool.shutdown()


# ---- results -------------------------------------------------------------------------------------------------------
class Jobs:
    def __init__(self, kind):
        self.kind = kind

    def emit(self, job, metric, value, unit):
        row = {"impl": self.kind.name, "job": job, "metric": metric, "value": value, "unit": unit}
        sys.stdout.write(json.dumps(row) + "\n")  # at once: a thread may write too
        sys.stdout.flush()

    def timed(self, call):
        begin = now()
        call()
        return now() - begin

    def median(self, values):
        return sorted(values)[len(values) // 2]

    def pool(self, workers=WORKERS):
        pool = self.kind(workers)
        pool.map(increment, range(64))
        return pool

    def J1(self):
        pool = self.pool()
        times = sorted(self.timed(lambda: pool.apply(increment, 1)) for _ in range(scaled(1000, 20)))
        self.emit("J1", "p50", self.median(times) * 1e6, "us")
        self.emit("J1", "p99", times[int(len(times) * 0.99)] * 1e6, "us")
        pool.close()

    def J2(self):
        pool = self.pool()
        tasks = scaled(20_000, 100)

        def submit_and_get():
            for result in [pool.submit(increment, i) for i in range(tasks)]:
                pool.get(result)

        self.emit("J2", "rate", tasks / self.timed(submit_and_get) / 1e3, "ktask/s")
        pool.close()

    def J3(self):
        pool = self.pool()
        for job, items, chunksize in (
            ("J3-default", scaled(300_000 if self.kind is Pool else 20_000, 1000), None),
            ("J3-chunk1", scaled(20_000, 1000), 1),
        ):
            time_taken = self.timed(lambda: pool.map(increment, range(items), chunksize))
            self.emit(job, "rate", items / time_taken / 1e6, "Mitem/s")
        pool.close()

    def J4(self):
        pool = self.pool()
        for size in (1, 64, 256) if FULL else (1, 64):
            count = (size << 20) // 8
            values = ones(count)
            times = scaled(20, 2) if size == 1 else 2
            argument = self.median([self.timed(lambda: pool.apply(ends, values)) for _ in range(times)])
            result = self.median([self.timed(lambda: pool.apply(ones, count)) for _ in range(times)])
            self.emit(f"J4-arg-{size}MiB", "bw", count * 8 / 1e9 / argument, "GB/s")
            self.emit(f"J4-res-{size}MiB", "bw", count * 8 / 1e9 / result, "GB/s")
        pool.close()

    def steps_of_a_millisecond(self):
        steps = 20_000
        return int(steps * 0.001 / min(self.timed(lambda: burn(steps)) for _ in range(9)))

    def serial(self, tasks, steps):
        return self.timed(lambda: [burn(steps) for _ in range(tasks)]) / tasks

    def J5(self):
        pool = self.pool()
        steps, tasks = self.steps_of_a_millisecond(), scaled(2000, 20)
        before = self.serial(math.ceil(tasks / 4), steps)
        taken = self.timed(lambda: pool.map(burn, [steps] * tasks))
        after = self.serial(math.ceil(tasks / 4), steps)
        self.emit("J5", "efficiency", (before + after) / 2 * tasks / taken / 2, "")
        pool.close()

    def J6(self):
        for workers in (2, 8, 64):
            def start_and_stop():
                pool = self.kind(workers)
                pool.apply(increment, 1)
                pool.close()

            times = [self.timed(start_and_stop) for _ in range(scaled(3) if workers < 64 else 1)]
            self.emit(f"J6-{workers}", "startstop", self.median(times) * 1e3, "ms")

    def J7(self):
        pool = self.pool()
        steps, tasks = self.steps_of_a_millisecond(), scaled(1000, 20)
        for name, place in (("first", 0), ("mid", tasks // 2), ("last", tasks)):
            for chunksize in (None, 1):
                work = [steps] * (tasks + 1)
                work[place] = steps * tasks // 2
                before = self.serial(min(tasks, 100), steps)
                taken = self.timed(lambda: pool.map(burn, work, chunksize))
                after = self.serial(min(tasks, 100), steps)
                self.emit(f"J7-{name}-{'chunk1' if chunksize else 'default'}", "makespan/ideal",
                          taken / (max(0.75 * tasks, (place + tasks) / 2) * (before + after) / 2), "")
        pool.close()

    def J8(self):
        heap = b"\x01" * (1 << 30)
        pool = self.pool()
        for _ in range(20):
            pool.apply(increment, 1)
        pids = {pid for pid in pool.map(pid_of_worker, range(100))}
        time.sleep(0.1)

        def private_dirty(pid):
            with open(f"/proc/{pid}/smaps_rollup") as file:
                return next(int(line.split()[1]) / 1024 for line in file if line.startswith("Private_Dirty:"))

        self.emit("J8-1GiB-parent", "private_dirty", self.median([private_dirty(pid) for pid in pids]), "MiB")
        pool.close()
        del heap

    def J9(self):
        pool = self.pool()
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "pid")
            before = set(pool.map(pid_of_worker, range(100), 1))
            doomed = pool.submit(tell_pid_and_burn, path)
            while not os.path.exists(path):
                time.sleep(0.001)
            with open(path) as file:
                victim = int(file.read())
        time.sleep(0.02)
        begin = now()
        os.kill(victim, signal.SIGKILL)
        replaced = []

        def await_new_worker():
            while now() - begin < LONGEST_WAIT and not replaced:
                try:
                    if pool.get(pool.submit(pid_of_worker, 0), 1) not in before | {victim}:
                        replaced.append(now() - begin)
                except multiprocessing.TimeoutError:
                    pass
                except Exception as error:  # the pool is broken for good
                    self.emit("J9", "note", f"no new worker: {type(error).__name__}", "")
                    return
                time.sleep(0.001)

        watcher = threading.Thread(target=await_new_worker)
        watcher.start()
        try:
            pool.get(doomed, LONGEST_WAIT)
        except Exception:
            if now() - begin < LONGEST_WAIT * 0.9:
                self.emit("J9", "error_p50", (now() - begin) * 1e3, "ms")
            else:
                self.emit("J9", "note", f"the caller still waits after {LONGEST_WAIT} s", "")
        watcher.join()
        if replaced:
            self.emit("J9", "replaced_p50", replaced[0] * 1e3, "ms")


if __name__ == "__main__":
    jobs = Jobs({"Pool": Pool, "ProcessPoolExecutor": Executor}[sys.argv[1]])
    for name in sys.argv[2:] or [f"J{i}" for i in range(1, 10)]:
        getattr(jobs, name)()
    # A pool that has lost a worker may not end by itself.
    for child in multiprocessing.active_children():
        child.kill()
    sys.stdout.flush()
    os._exit(0)
