"""One writer at a time: a lock on a folder or file, which ends with its process however that ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from framepred.errors import FramepredError

try:
    import fcntl
except ImportError:  # Windows has no such locks.
    fcntl = None  # type: ignore[assignment]

_HELD: set[tuple[int, int]] = set()
"""Device and number of what this process holds."""


@contextmanager
def locked(path: Path, shared: bool = False, again: bool = False) -> Iterator[None]:
    """Hold the lock of a folder or file that exists; `shared` allows others that hold it shared.

    `again` allows a lock that this process holds already.
    Raises FramepredError where another process holds it. File systems without locks (some network ones) go without.
    """
    if fcntl is None:
        yield
        return
    file = os.open(path, os.O_RDONLY)
    number = _number(os.fstat(file))
    try:
        if again and number in _HELD:
            yield
            return
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            moved = number != _number(path.stat())
        except (BlockingIOError, FileNotFoundError):
            moved = True
        except OSError:
            moved = False
        if moved:
            raise FramepredError(f"another framepred is writing {path}: wait until it has ended")
        _HELD.add(number)
        try:
            yield
        finally:
            _HELD.discard(number)
    finally:
        os.close(file)


def _number(about: os.stat_result) -> tuple[int, int]:
    return about.st_dev, about.st_ino
