"""Outputs that exist already: never touched without --overwrite, and then only lost to a successor."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from framepred.errors import FramepredError, Interrupted

_MARKS = ("framepred.json", "recipe.toml", "recording.json")


@contextmanager
def overwriting(path: Path, inputs: Iterable[str | None] = ()) -> Iterator[None]:
    """Set a folder aside while its successor is made; put it back if that ends in a FramepredError.

    Raises FramepredError for a folder that framepred did not make or that holds one of the `inputs`.
    """
    if not (path.is_dir() and any(path.iterdir())):
        yield
        return
    for given in inputs:
        if given and Path(given).exists() and Path(given).resolve().is_relative_to(path.resolve()):
            raise FramepredError(f"--overwrite would delete {path}, which holds the input {given}: choose another -o")
    if not any((path / mark).exists() for mark in _MARKS):
        raise FramepredError(f"{path} is a folder that framepred did not make; delete it yourself or choose another -o")
    aside = path.with_name(f".{path.name}.old")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    try:
        yield
    except FramepredError as error:
        if not isinstance(error, Interrupted):
            shutil.rmtree(path, ignore_errors=True)
            aside.rename(path)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
