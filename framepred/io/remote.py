"""Places that fsspec reaches (`s3://BUCKET/KEY`, `gs://…`, `hf://datasets/OWNER/NAME/…`), used as paths."""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from framepred.errors import FramepredError
from framepred.io.atomic import writing

# `hf://OWNER/NAME` without `datasets/` is a model or tokenizer, which `hub` fetches.
_URL = re.compile(r"(?!hf://(?!datasets/))[a-z][a-z0-9+.-]+://.")


class Unreachable(FramepredError):
    """A remote place does not answer, or does not let us: what was asked of it may succeed later."""


def is_url(where: str | os.PathLike[str]) -> bool:
    """Say whether a name means a remote place."""
    return bool(_URL.match(os.fspath(where)))


def is_remote(path: Any) -> bool:
    """Say whether a path is one that `place` made for a remote place."""
    return not isinstance(path, str | PurePath)


def place(where: str | os.PathLike[str]) -> Path:
    """Return the path that a name means: on this machine, or a remote one, which reads, lists and deletes like it.

    Raises FramepredError where what reaches a remote one is not installed.
    """
    if is_remote(where):
        return where  # type: ignore[return-value]
    if not is_url(where):
        return Path(where)
    try:
        from upath import UPath
    except ImportError as error:
        raise FramepredError(f"{where} is a remote place: pip install 'framepred[cluster]'") from error
    with reaching(where):
        try:
            path: Any = UPath(os.fspath(where))
            # Made on first use: a protocol that nobody knows, or whose package is missing, is said here.
            assert path.fs is not None
        except ImportError as error:
            raise _lacking(os.fspath(where), error) from error
    return path


def _lacking(where: str, error: ImportError) -> FramepredError:
    """Return what is said where the package that reaches a place is not installed."""
    from fsspec.registry import known_implementations

    package = known_implementations.get(where.partition(":")[0], {}).get("class", "").partition(".")[0]
    # What fsspec itself has, needs packages whose names only its words say.
    fix = "install that" if package in ("", "fsspec") else f"pip install {package}"
    return FramepredError(f"{where} needs a package that is not installed ({error}): {fix}")


@contextmanager
def reaching(where: str | os.PathLike[str]) -> Iterator[None]:
    """Raise Unreachable, in one line, for any error of what is asked of a place; nothing for one on this machine."""
    try:
        yield
    except FramepredError:
        raise
    except Exception as error:
        if not is_url(str(where)):
            raise
        # Each protocol has errors of its own, of no common kind.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unreachable(
            f"{where} cannot be reached ({reason}): check the address, the network and what you are logged in with"
        ) from error


@contextmanager
def writing_at(path: Any, writer: str = "") -> Iterator[Path]:
    """Yield a temporary path here; the file written there appears whole as `path`, as `writing` does, or not at all."""
    if not is_remote(path):
        with writing(path, writer) as temporary:
            yield temporary
        return
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with reaching(path):
            path.fs.put_file(str(temporary), path.path)


def delete_at(path: Any) -> None:
    """Delete a file, here or at a remote place: paths of the Hub do not do it themselves."""
    if is_remote(path):
        with reaching(path):
            path.fs.rm(path.path)
    else:
        path.unlink()


def state_of(path: Any) -> str:
    """Return what is another once a file was changed; the times of files are not known of every remote place."""
    if is_remote(path):
        with reaching(path):
            return str(path.fs.ukey(path.path))
    about = path.stat()
    return f"{about.st_size} {about.st_mtime}"
