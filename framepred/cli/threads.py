"""How many threads a command computes with."""

import os
import time
from pathlib import Path

_STAT = Path("/proc/stat")


def use_free_cores() -> None:
    """Compute with as many threads as cores are free now; OMP_NUM_THREADS, where it is set, decides instead.

    Threads that wait for one that another process keeps from running spin: beside one busy process, two threads on two
    cores train at a third of their rate alone, one thread at more than half.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return
    import torch

    torch.set_num_threads(min(torch.get_num_threads(), free_cores()))


def free_cores(seconds: float = 0.2) -> int:
    """Return how many cores other processes leave idle over some seconds, at least 1; all where nobody can say."""
    before = _idle_and_total()
    time.sleep(seconds if before else 0.0)
    after = _idle_and_total()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not before or not after or after[1] <= before[1]:
        return cores
    share = (after[0] - before[0]) / (after[1] - before[1])
    return max(1, min(cores, round(share * (os.cpu_count() or cores))))


def _idle_and_total() -> tuple[int, int] | None:
    """Return the ticks that all cores were idle, waiting for a disk among it, and all their ticks, since the start."""
    try:
        ticks = [int(n) for n in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)
    except (OSError, ValueError, IndexError):
        return None
