"""What a store has of each frame may be larger than memory: one file, mapped, from which windows are read."""

import hashlib
import itertools
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framepred.io.atomic import writing
from framepred.io.remote import is_remote, state_of

IN_MEMORY = 256 * 2**20
"""Bytes of a store that are kept in memory; more are mapped."""
_MAPS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_CALLS = itertools.count(1)


def joined(
    files: Sequence[Path], columns: Sequence[tuple[npt.DTypeLike, int]], rows: Iterable[Sequence[npt.NDArray[Any]]]
) -> list[npt.NDArray[Any]]:
    """Return columns (count,), given as (dtype, count): what each of the `rows` has of them, end to end.

    Large ones are written beside their `files` as `.tokens-*.mapped` once, for every process and later call; to the
    system's folder for temporary files where that is remote or cannot be written. The first column is the one that is
    read in small pieces. Raises FramepredError where no disk takes them.
    """
    sizes = [np.dtype(dtype).itemsize * count for dtype, count in columns]
    if sum(sizes) <= IN_MEMORY:
        parts = list(zip(*rows, strict=True)) or [()] * len(columns)
        return [np.concatenate([np.empty(0, d), *part]) for (d, _), part in zip(columns, parts, strict=True)]
    # Each begins with a page of its own: how it is read is said of pages.
    pages = [-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes]
    starts = [0, *itertools.accumulate(pages)]
    with _written(files, starts, rows).open("rb") as whole:
        mapped = mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM, 0, sizes[0])
    _MAPS.add(mapped)
    return [np.frombuffer(mapped, d, n, start) for (d, n), start in zip(columns, starts, strict=False)]


def _written(files: Sequence[Path], starts: list[int], rows: Iterable[Sequence[npt.NDArray[Any]]]) -> Path:
    """Return the file in which each column begins at its one of `starts`, of which the last is where all end."""
    folder = files[0].parent
    if is_remote(folder) or not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    states = [(str(file), state_of(file)) for file in files]
    path = folder / f".tokens-{hashlib.sha256(repr((states, starts)).encode()).hexdigest()[:16]}.mapped"
    if path.exists():
        return path
    with writing(path, str(os.getpid())) as temporary, temporary.open("wb") as file:
        places = starts[:-1]
        for row in rows:
            for number, part in enumerate(row):
                file.seek(places[number])
                places[number] += file.write(part.data)
        file.truncate(starts[-1])
    if folder == files[0].parent:
        for old in (*folder.glob(".tokens-*.mapped"), *folder.glob(".tokens-*.int32")):
            if old != path:
                old.unlink(missing_ok=True)
    return path


def let_go() -> None:
    """Let go, at each 4th call, of the memory that what was read of mapped columns takes: it is read again if wanted.

    Else a process would in time hold all that it ever drew from.
    """
    if _MAPS and hasattr(mmap, "MADV_DONTNEED") and next(_CALLS) % 4 == 0:
        for mapped in _MAPS:
            mapped.madvise(mmap.MADV_DONTNEED)
