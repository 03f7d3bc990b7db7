"""Outputs that exist already: kept without --overwrite, and with it until the new output is complete."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from framepred.errors import FramepredError, Interrupted

_MARKS = ("framepred.json", "recipe.toml", "recording.json")


@contextmanager
def replacing(path: Path, overwrite: bool, *inputs: str | None) -> Iterator[None]:
    """With `overwrite`, move the folder `path` aside while the new one is made, and delete it at the end.

    An error moves it back. After Ctrl-C or a kill both are kept, because the new one can be continued: the old one is
    .NAME.old until a call for the same path succeeds. Raises FramepredError for a folder that framepred did not
    make or that holds one of the `inputs`.
    """
    aside = path.with_name(f".{path.name}.old")
    if overwrite and path.is_dir() and any(path.iterdir()):
        _check(path, inputs)
        if aside.exists():
            # What the last call left unfinished.
            shutil.rmtree(path)
        else:
            path.rename(aside)
    try:
        yield
    except (KeyboardInterrupt, Interrupted):
        _put_back(path, aside, only_if_missing=True)
        raise
    except BaseException:
        if overwrite:
            _put_back(path, aside)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _put_back(path: Path, aside: Path, only_if_missing: bool = False) -> None:
    if aside.exists() and not (only_if_missing and path.exists()):
        shutil.rmtree(path, ignore_errors=True)
        aside.rename(path)


def _check(path: Path, inputs: Iterable[str | None]) -> None:
    for given in inputs:
        if given and Path(given).exists() and Path(given).resolve().is_relative_to(path.resolve()):
            raise FramepredError(f"--overwrite would delete {path}, which holds the input {given}: choose another -o")
    if not any((path / mark).exists() for mark in _MARKS):
        raise FramepredError(f"{path} is a folder that framepred did not make; delete it yourself or choose another -o")
