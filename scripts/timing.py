"""The clock of the benchmarks."""

import time

import torch


def now() -> float:
    """Return the time, once a GPU has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
