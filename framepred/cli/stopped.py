"""What is said when a command that goes on later is stopped: what is on disk, and how to go on."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from framepred.errors import Interrupted
from framepred.io.interrupts import is_interrupt

AGAIN = "give the same command again to go on"


@contextmanager
def saying_what_is_saved(
    out: Path, place: AbstractContextManager[Path], saved: Callable[[Path], str], how: str = AGAIN
) -> Iterator[Path]:
    """Yield the folder of `place` that is to be `out`; Ctrl-C raises Interrupted, which says what is in it.

    `saved` reads that from the disk, "" for nothing.
    """
    folder, finished = out, False
    try:
        with place as folder:
            yield folder
            finished = True
    except BaseException as error:
        if not is_interrupt(error):
            raise
        # One that came when all was done stops nothing.
        if not finished or (folder != out and folder.is_dir()):
            kept = f"; {out} is as it was" if folder != out else ""
            done = saved(folder)
            said = f"; {done} saved in {folder}{kept}: {how}" if done else f" before anything was saved{kept}"
            raise Interrupted(f"stopped{said}") from None
