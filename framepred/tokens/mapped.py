"""What a store has of each frame may be larger than memory: one file, mapped, from which windows are read."""

import hashlib
import itertools
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from framepred.errors import FramepredError
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
    read in small pieces. Raises FramepredError where no disk takes them, and where rows are more or fewer than that.
    """
    rows = _all_of(columns, rows)
    sizes = [np.dtype(dtype).itemsize * count for dtype, count in columns]
    if sum(sizes) <= IN_MEMORY:
        return _filled(columns, rows)
    # Each begins with a page of its own: how it is read is said of pages.
    pages = [-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in sizes]
    starts = [0, *itertools.accumulate(pages)]
    with _written(files, starts, rows).open("rb") as whole:
        mapped = mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM, 0, sizes[0])
    _MAPS.add(mapped)
    return [np.frombuffer(mapped, d, n, start) for (d, n), start in zip(columns, starts, strict=False)]


def _all_of(
    columns: Sequence[tuple[npt.DTypeLike, int]], rows: Iterable[Sequence[npt.NDArray[Any]]]
) -> Iterator[Sequence[npt.NDArray[Any]]]:
    """Yield the rows; raise FramepredError where they are not what the columns were counted to be."""
    left = [count for _, count in columns]
    for row in rows:
        left = [n - len(part) for n, part in zip(left, row, strict=True)]
        if min(left) < 0:
            break
        yield row
    if any(left):
        raise FramepredError("the token store was changed while it was read: give the command again")


def _filled(
    columns: Sequence[tuple[npt.DTypeLike, int]], rows: Iterable[Sequence[npt.NDArray[Any]]]
) -> list[npt.NDArray[Any]]:
    """Return the columns in memory, without holding the rows beside them."""
    flat = [np.empty(count, dtype) for dtype, count in columns]
    places = [0] * len(flat)
    for row in rows:
        for number, part in enumerate(row):
            flat[number][places[number] : places[number] + len(part)] = part
            places[number] += len(part)
    return flat


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
