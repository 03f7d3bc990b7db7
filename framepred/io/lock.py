"""One writer at a time: a lock on a folder, which ends with its process however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framepred.errors import FramepredError

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder that exists; FramepredError where another process holds it.

    File systems without locks (some network ones) go without.
    """
    if fcntl is None:
        yield
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FramepredError(f"another framepred is writing {folder}: wait until it has ended") from None
        except OSError:
            pass
        yield
    finally:
        os.close(file)
