"""How a process holds memory."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # Of glibc's malloc.h.


def keep_memory() -> None:
    """Let the process keep what it frees for what it needs next.

    glibc gives each array over 32 MB back at once, and the kernel clears every page of the next one: on CPUs up to half
    of the time of a training step. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_MMAP_MAX, 0)
    mallopt(_TRIM_THRESHOLD, -1)
