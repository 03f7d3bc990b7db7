"""Who writes a token store: one job, or one job of each part."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from framepred.io.atomic import cannot_write
from framepred.io.lock import locked
from framepred.io.remote import is_remote


@contextmanager
def only_writer(folder: Path, part: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Hold a store, which is made where it does not exist, for the job of part (i, n).

    Jobs of different parts of the same n may write at once. Raises FramepredError where another job writes what this
    one would write too; a remote place has no locks: there it is for you to see to. A folder that is still empty in
    the end is removed.
    """
    if is_remote(folder):
        yield
        return
    lock = folder / f".part-{part[0]}of{part[1]}.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        with locked(folder, shared=part[1] > 1, again=True):
            for other in folder.glob(".part-*.lock"):
                if other.name.rpartition("of")[2] != lock.name.rpartition("of")[2]:
                    # Parts of another number hold some of the same videos.
                    with locked(other):
                        other.unlink(missing_ok=True)
            with _part(lock):
                yield
    finally:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def _part(lock: Path) -> Iterator[None]:
    """Hold a file that is made for it, and remove it in the end."""
    try:
        lock.touch()
    except OSError as error:
        raise cannot_write(lock.parent, error) from error
    with locked(lock, again=True):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)
