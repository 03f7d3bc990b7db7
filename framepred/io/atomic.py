"""Files and folders that are written whole or not at all.

What is new has a temporary, hidden name beside its place until it is complete; only then does it replace the old one.
If the program ends before (an error, Ctrl-C, a kill, a full disk), the old one is as it was.
"""

import errno
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from framepred.errors import FramepredError, FramepredWarning
from framepred.io.interrupts import interrupts_held
from framepred.io.lock import locked

_FIXES = {
    errno.ENOSPC: "free space or choose another folder",
    errno.EDQUOT: "free space or choose another folder",
    errno.EACCES: "choose a writable folder",
    errno.EPERM: "choose a writable folder",
    errno.EROFS: "choose a writable folder",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def cannot_write(path: Path, error: Exception) -> FramepredError:
    """Return the one line for a `path` that could not be written, from the error of the system or of a library."""
    # safetensors, written in Rust, and shutil give the system's number in words.
    found = re.search(r"(?:os error |\[Errno )(\d+)", str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else 0)
    reason = getattr(error, "strerror", None) or (os.strerror(number) if number else " ".join(str(error).split()))
    fix = _FIXES.get(number, "choose another name or folder")
    return FramepredError(f"cannot write {path} ({reason}): {fix}")


def _explained(path: Path, temporary: Path, error: Exception) -> FramepredError:
    """Return the one line for an error while `path` was made: what was read for it may be what failed."""
    failed = getattr(error, "filename", None)
    if failed is None or Path(failed).is_relative_to(temporary) or path.is_relative_to(failed):
        return cannot_write(path, error)
    return FramepredError(f"{failed}: {getattr(error, 'strerror', error)}; {path} needs it")


def real(path: Path) -> Path:
    """Return the place that a path means, through links, as it can be renamed."""
    return path.resolve() if path.is_symlink() or path.name in ("", "..") else path


@contextmanager
def writing(path: str | os.PathLike[str], writer: str = "") -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` if the block ends without an exception.

    `writer` keeps apart the temporary files of processes that write the same file. A link stays one: the file that it
    leads to is replaced. Raises FramepredError where the disk refuses; any exception removes the temporary file.
    """
    path = Path(path)
    target = real(path)
    temporary = target.with_name(f".{target.name}.{writer and f'{writer}.'}partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        raise _explained(path, temporary, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike[str], text: str, writer: str = "") -> None:
    """Write a text file in UTF-8, as `writing` does."""
    with writing(path, writer) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def writing_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield an empty temporary folder, which replaces the folder `path` if the block ends without an exception.

    Raises FramepredError where the disk refuses; any exception removes the temporary folder.
    """
    path = Path(path)
    target = real(path)
    temporary = hidden(target, "partial")
    try:
        settle(target)
        temporary.mkdir(parents=True, exist_ok=True)
        with locked(temporary):
            try:
                empty(temporary)
                yield temporary
                swap(temporary, target)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise _explained(path, temporary, error) from error


def hidden(path: Path, kind: str) -> Path:
    """Return the hidden name beside `path` of its folder that is "partial", "complete", "replaced" or "deleted"."""
    return path.with_name(f".{path.name}.{kind}")


def empty(folder: Path) -> None:
    """Delete what a folder holds."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def swap(new: Path, path: Path) -> None:
    """Let the folder `new`, which is complete, take the place of `path`, and delete what was there.

    A kill in between leaves the new folder as .NAME.complete, which `settle` puts in its place.
    """
    with interrupts_held():
        complete = hidden(path, "complete")
        os.replace(new, complete)
        try:
            settle(path)
        except BaseException:
            # The system refused: the old folder stays.
            with suppress(OSError):
                os.replace(complete, new)
            raise


def settle(path: Path) -> None:
    """Finish what a killed `swap` has begun, if one has: put a complete new folder at `path`, delete the old one."""
    complete, replaced, deleted = (hidden(path, kind) for kind in ("complete", "replaced", "deleted"))
    if complete.is_dir():
        moved = path.exists()
        if moved:
            os.replace(path, replaced)
        try:
            os.replace(complete, path)
        except OSError as error:
            if moved and not path.exists():
                os.replace(replaced, path)
            # Another process that came to settle it may have been first.
            if not isinstance(error, FileNotFoundError):
                raise
    elif replaced.is_dir() and not path.exists():
        os.replace(replaced, path)
    # Under its last name it may be half deleted: it never comes back from there.
    shutil.rmtree(deleted, ignore_errors=True)
    if replaced.is_dir():
        with suppress(OSError):
            os.replace(replaced, deleted)
        shutil.rmtree(deleted, ignore_errors=True)


def to_read(path: str | os.PathLike[str]) -> Path:
    """Return a path that is to be read; a folder of it that a killed `swap` left aside is put back first, and said."""
    path = Path(path)
    for folder in () if path.exists() else (path, *path.parents):
        place = real(folder)
        left = [hidden(place, kind) for kind in ("complete", "replaced")] if place.name else []
        if place.exists() or not any(aside.is_dir() for aside in left):
            continue
        try:
            settle(place)
        except OSError as error:
            raise cannot_write(folder, error) from error
        message = f"{folder} had been left aside by a command that was killed, and is in its place again"
        warnings.warn(FramepredWarning(message), stacklevel=3)
    return path
