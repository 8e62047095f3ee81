# SPDX-License-Identifier: BSL-1.0
"""What procpool is to reach: (job, metric, "<=" or ">=", factor, reference). The reference is the (impl, job, metric)
by which the value is divided first, in the same round; None: the value itself is judged."""

SPIN = ("floor:spin", "pp-cross", "p50")
FUTEX = ("floor:futex", "pp-cross", "p50")


def floor(impl, job, metric):
    return (f"floor:{impl}", job, metric)


def copies(kind, size):
    return floor(f"memcpy-xproc-{kind}", f"{size}MiB", "bw")


GOALS = [
    ("J1", "p50", "<=", 1.0, None),
    ("J1", "p50", "<=", 5, SPIN),
    ("J1-nospin-same", "p50", "<=", 1.5, floor("futex", "pp-same", "p50")),
    ("J1-nospin-cross", "p50", "<=", 1.25, FUTEX),
    ("J1-gap200us", "p50", "<=", 1.5, FUTEX),
    ("J1-gap10ms", "p50", "<=", 1.5, floor("futex", "pp-cross-gap10ms", "p50")),
    ("J2", "rate", ">=", 2000, None),
    ("J2", "rate", ">=", 4, ("condvar-pool", "J2", "rate")),
    ("J2-8threads", "rate", ">=", 1, ("procpool", "J2", "rate")),
    ("J3-default", "rate", ">=", 0.4, ("condvar-pool", "J3-default", "rate")),
    ("J3-chunk1", "rate", ">=", 3, None),
    ("J3-chunk1", "rate", ">=", 5, ("condvar-pool", "J3-chunk1", "rate")),
    ("J3-imap", "rate", ">=", 1, None),
    ("J3-reduce", "rate", ">=", 0.9, floor("two-threads", "J3-reduce", "rate")),
    *[(f"J4-arg-{size}MiB", "bw", ">=", 0.9, copies("2copy-fresh-vector", size)) for size in (1, 64, 256)],
    *[
        (f"J4-arg-{size}MiB-kept", "bw", ">=", 0.7, copies("2copy-kept-heap-vector", size))
        for size in (1, 64, 256)
    ],
    *[(f"J4-view-{size}MiB", "bw", ">=", 0.8, copies("1copy", size)) for size in (1, 64, 256)],
    *[(f"J4-res-{size}MiB", "bw", ">=", 0.8, copies("2copy-fresh-vector", size)) for size in (1, 64, 256)],
    *[
        (f"J4-shared-{size}MiB", "p50", "<=", 2, ("procpool", f"J4-shared-{size}MiB", "int_p50"))
        for size in (1, 64, 256)
    ],
    ("J5", "efficiency", ">=", 0.98, floor("2proc-next-item", "J5", "efficiency")),
    ("J5", "efficiency", ">=", 1, ("condvar-pool", "J5", "efficiency")),
    *[
        (f"J6-{workers}{parent}", "startstop", "<=", 2,
         floor("fork-N-ack-stop-reap", f"J6-{workers}{parent}", "startstop"))
        for parent in ("", "-1GiB-parent")
        for workers in (2, 8, 64)
    ],
    *[
        (f"J7-{place}-{chunks}", "makespan/ideal", "<=", 1.03, None)
        for place in ("first", "mid", "last")
        for chunks in ("default", "chunk1")
    ],
    ("J8-small-parent", "private_dirty", "<=", 0.3, None),
    ("J8-1GiB-parent", "private_dirty", "<=", 0.3, None),
    ("J8-queued", "per_task", "<=", 256, None),
    ("J8-idle", "wakeups_in_10s", "<=", 0, None),
    ("J8-idle", "cpu_in_10s", "<=", 0, None),
    *[
        (f"J9{parent}", metric, "<=", 4, floor("pidfd+fork", f"J9{parent}", metric))
        for parent in ("", "-1GiB-parent")
        for metric in ("error_p50", "replaced_p50")
    ],
    ("J10-tasks", "spread", "<=", 1.3, None),
    ("J10-workers", "spread", "<=", 1.3, None),
    ("J10-order", "spread", "<=", 1.3, None),
]
