"""Folders that replace earlier ones: the old one stays in its place until the new one is whole."""

import hashlib
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from fnmatch import fnmatch
from pathlib import Path

from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import cannot_write, empty, hidden, real, settle, swap
from framepred.io.lock import locked
from framepred.io.model_files import MODEL_FILES

_MARKS = ("framepred.json", "recording.json")
_MODEL_PARTS = ("tokenizer", "tokens", *MODEL_FILES)


def folder_to_write(path: Path, overwrite: bool, job: str = "", resume: bool = False) -> Path:
    """Return where a command writes its folder `path`: there, or in a hidden folder beside that is to replace it.

    It is the hidden one where `overwrite` replaces a folder that is not empty, and where `resume` goes on with one that
    an earlier command left. A `job` has a hidden folder of its own.
    """
    place = real(path)
    settle(place)
    new = hidden(place, f"partial-{hashlib.sha256(job.encode(errors='replace')).hexdigest()[:8]}" if job else "partial")
    if resume and new.is_dir():
        return new
    return new if overwrite and place.is_dir() and any(place.iterdir()) else path


@contextmanager
def replacing(
    path: Path, overwrite: bool, *inputs: str | None, keep: Sequence[str] = (), job: str = "", resume: bool = False
) -> Iterator[Path]:
    """Yield `folder_to_write`; a hidden one takes the place of `path` if the block ends without an exception.

    However the program ends before that, `path` is as it was. What is hidden then stays if it holds a file that matches
    one of `keep`: the same call with `resume` goes on with it, one without begins anew. Raises FramepredError for a
    folder that framepred did not make, that holds one of the `inputs`, or that another process is writing.
    """
    try:
        place, target = real(path), folder_to_write(path, overwrite, job, resume)
        if overwrite:
            check_replaceable(path, *inputs)
        for left in _unfinished(place):
            if left != target:
                _drop(left, overwrite, keep, f"give {'the same --overwrite' if job else '--resume'} to go on with it")
        if target == path:
            yield path
            return
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    # Who still writes the old folder would write into the new one.
    with locked(place) if place.is_dir() else nullcontext(), locked(target):
        yield from _replaced(path, place, target, keep, resume)


def _replaced(path: Path, place: Path, target: Path, keep: Sequence[str], resume: bool) -> Iterator[Path]:
    if not resume:
        empty(target)
    elif any(target.iterdir()):
        said = f"going on with {target}, which an earlier command began in place of {path}: delete it to begin anew"
        warnings.warn(FramepredWarning(said), stacklevel=4)
    try:
        yield target
    except BaseException:
        if not _holds(target, keep):
            shutil.rmtree(target, ignore_errors=True)
        raise
    try:
        swap(target, place)
    except OSError as error:
        raise cannot_write(path, error) from error


def _unfinished(path: Path) -> list[Path]:
    """Return the hidden folders that earlier commands left for `path`."""
    if not path.parent.is_dir():
        return []
    name = re.compile(rf"\.{re.escape(path.name)}\.partial(-[0-9a-f]{{8}})?")
    return [Path(entry.path) for entry in os.scandir(path.parent) if name.fullmatch(entry.name) and entry.is_dir()]


def _drop(left: Path, overwrite: bool, keep: Sequence[str], fix: str) -> None:
    """Delete what an earlier command left; without `overwrite` an error where one can go on from it."""
    with locked(left):
        if not overwrite and _holds(left, keep):
            raise FramepredError(f"{left} is what an --overwrite left that was stopped: {fix}, or delete it")
        shutil.rmtree(left, ignore_errors=True)


def _holds(folder: Path, patterns: Sequence[str]) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in patterns)


def check_replaceable(path: Path, *inputs: str | None) -> None:
    """Raise FramepredError where `path` cannot be replaced, is not framepred's, or holds one of the `inputs`."""
    folder = path.resolve()
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FramepredError(f"{path} is a file, not a folder: choose another -o")
    if not any(folder.iterdir()):
        return
    if Path.cwd().is_relative_to(folder):
        raise FramepredError(f"{path} is the folder you are in, or holds it: go elsewhere, or choose another -o")
    if os.path.ismount(folder):
        raise FramepredError(f"{path} is a mount point, which cannot be replaced: choose a folder in it")
    for given in inputs:
        if given and Path(given).exists() and Path(given).resolve().is_relative_to(folder):
            raise FramepredError(f"--overwrite would delete {path}, which holds the input {given}: choose another -o")
    if not (any((folder / mark).exists() for mark in _MARKS) or _is_model(folder)) or (folder / ".git").exists():
        raise FramepredError(f"{path} is a folder that framepred did not make; delete it yourself or choose another -o")


def _is_model(folder: Path) -> bool:
    """Say whether a folder is a tokenizer or a run, finished or not, and holds nothing else."""
    names = [entry.name for entry in folder.iterdir()]
    shown = [name for name in names if not name.startswith(".")]
    known = all(any(fnmatch(name, part) for part in _MODEL_PARTS) for name in shown)
    return known and bool({"recipe.toml", "config.json"} & set(names))
