"""Tokens of a store that may be larger than memory: one file of int32, mapped, from which windows are read."""

import hashlib
import itertools
import mmap
import os
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from framepred.io.atomic import writing
from framepred.io.remote import is_remote

IN_MEMORY = 256 * 2**20
"""Bytes of tokens that are kept in memory; more are mapped."""
_MAPS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_CALLS = itertools.count(1)


def flat(files: Sequence[Path], count: int, parts: Iterable[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    """Return `count` tokens, which are those of `parts` one after the other, int32 (count,).

    Many are written beside their `files` as `.tokens-*.int32` once, for every process and later call; to the system's
    folder for temporary files where that is remote or cannot be written. Raises FramepredError where no disk takes it.
    """
    if 4 * count <= IN_MEMORY:
        return np.concatenate([np.empty(0, np.int32), *parts])
    folder = files[0].parent
    if is_remote(folder) or not os.access(folder, os.W_OK):
        folder = Path(tempfile.gettempdir())
    states = [(str(file), file.stat().st_size, file.stat().st_mtime) for file in files]
    name = hashlib.sha256(repr(states).encode()).hexdigest()[:16]
    path = folder / f".tokens-{name}.int32"
    if not path.exists():
        with writing(path, str(os.getpid())) as temporary, temporary.open("wb") as file:
            for part in parts:
                part.tofile(file)
        if folder == files[0].parent:
            for old in folder.glob(".tokens-*.int32"):
                if old != path:
                    old.unlink(missing_ok=True)
    with path.open("rb") as whole:
        mapped = mmap.mmap(whole.fileno(), 0, access=mmap.ACCESS_COPY)
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    _MAPS.add(mapped)
    return np.frombuffer(mapped, np.int32)


def let_go() -> None:
    """Let go, at each 4th call, of the memory that what was read of mapped tokens takes: it is read again if wanted.

    Else a process would in time hold all that it ever drew from.
    """
    if _MAPS and hasattr(mmap, "MADV_DONTNEED") and next(_CALLS) % 4 == 0:
        for mapped in _MAPS:
            mapped.madvise(mmap.MADV_DONTNEED)
