"""How many threads a sweep may take."""

import os

CORES = "CT_ADAM_CORES"
"""Environment variable: at most so many, where several processes share a machine."""


XLA_CORES = "NPROC"
"""Environment variable that XLA reads when it starts: its threads. A long contraction is cut among
them, and its last digits with it."""


def xla_threads() -> int:
    """Threads of XLA on the CPU."""
    told = os.environ.get(XLA_CORES, "")
    return int(told) if told.isdigit() else _bound()


def cpus() -> int:
    """Cores that this process may use."""
    count = _bound()
    most = os.environ.get(CORES, "")
    return min(count, int(most)) if most.isdigit() and int(most) else count


def _bound() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
