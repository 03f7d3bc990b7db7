"""Files and folders that are written whole or not at all.

A new file has a temporary, hidden name in the same folder until it is complete; only then does it replace the old
one. If the program ends before (an error, Ctrl-C, a kill, a full disk), the old file is as it was.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from framepred.errors import FramepredError


def cannot_write(path: Path, error: Exception) -> FramepredError:
    """Return the one line for a `path` that could not be written, from the system's error."""
    fix = "choose a writable folder"
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        fix = "free space or choose another folder"
    return FramepredError(f"cannot write {path} ({getattr(error, 'strerror', None) or error}): {fix}")


@contextmanager
def writing(path: str | os.PathLike[str], writer: str = "") -> Iterator[Path]:
    """Yield a temporary path; the file written there replaces `path` if the block ends without an exception.

    `writer` keeps apart the temporary files of processes that write the same file. Raises FramepredError where the
    disk refuses; any exception removes the temporary file.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{writer and f'{writer}.'}partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
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
    temporary, replaced = (path.with_name(f".{path.name}.{kind}") for kind in ("partial", "replaced"))
    try:
        if replaced.exists() and not path.exists():
            # The program was killed between the two renames below.
            replaced.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            path.rename(replaced)
        try:
            os.replace(temporary, path)
        except BaseException:
            if replaced.exists():
                replaced.rename(path)
            raise
        shutil.rmtree(replaced, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
