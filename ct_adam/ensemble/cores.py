"""How many threads a sweep may take."""

import os

CORES = "CT_ADAM_CORES"
"""Environment variable: at most so many, where several processes share a machine."""


def cpus() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity else os.cpu_count() or 1
    most = os.environ.get(CORES, "")
    return min(count, int(most)) if most.isdigit() and int(most) else count
