"""Nothing finished is lost before its successor is whole: every writer, every way that a program ends."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from framepred.errors import FramepredError, Interrupted
from framepred.io.atomic import write_text, writing, writing_folder
from framepred.io.outputs import replacing
from framepred.sources.actions_csv import write_actions
from framepred.sources.captions_csv import Caption, write_captions

ENDS: dict[str, tuple[BaseException, type[BaseException], str | None]] = {
    "error": (RuntimeError("stop"), RuntimeError, "stop"),
    "interrupt": (KeyboardInterrupt(), KeyboardInterrupt, None),
    "full disk": (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        FramepredError,
        r"cannot write .*\(No space left on device\): free space or choose another folder",
    ),
    "read-only": (
        OSError(errno.EROFS, os.strerror(errno.EROFS)),
        FramepredError,
        r"cannot write .*\(Read-only file system\): choose a writable folder$",
    ),
}
WRITERS: dict[str, Callable[[Path], None]] = {
    "write_text": lambda path: write_text(path, "new"),
    "write_actions": lambda path: write_actions(path, torch.tensor([1, 2]), ["action"]),
    "write_captions": lambda path: write_captions(path, [Caption(0.0, 1.0, "new")]),
}


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("old", [True, False])
def test_writing_that_ends_early_leaves_the_old_file(tmp_path: Path, end: str, old: bool) -> None:
    raised, expected, words = ENDS[end]
    if old:
        (tmp_path / "a.json").write_text("old")
    with pytest.raises(expected, match=words), writing(tmp_path / "a.json") as temporary:
        temporary.write_text("ne")
        raise raised
    assert content(tmp_path) == ({"a.json": "old"} if old else {})


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("old", [True, False])
def test_writing_a_folder_that_ends_early_leaves_the_old_folder(tmp_path: Path, end: str, old: bool) -> None:
    raised, expected, words = ENDS[end]
    if old:
        write_text(tmp_path / "run" / "a.json", "old")
    with pytest.raises(expected, match=words), writing_folder(tmp_path / "run") as temporary:
        (temporary / "b.json").write_text("ne")
        raise raised
    assert content(tmp_path) == ({"run/a.json": "old"} if old else {})
    assert [p.name for p in tmp_path.iterdir()] == (["run"] if old else [])


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("writer", WRITERS)
def test_writers_that_end_at_the_last_moment_leave_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, end: str
) -> None:
    raised, expected, words = ENDS[end]
    path = tmp_path / "a.csv"
    path.write_text("old")

    def refuse(*_: Any) -> None:
        raise raised

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(expected, match=words):
        WRITERS[writer](path)
    monkeypatch.undo()
    assert content(tmp_path) == {"a.csv": "old"}
    WRITERS[writer](path)
    assert content(tmp_path)["a.csv"] != "old"
    assert len(content(tmp_path)) == 1


def test_a_folder_that_cannot_be_renamed_into_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(tmp_path / "run" / "a.json", "old")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FramepredError, match="No space left"), writing_folder(tmp_path / "run") as temporary:
        (temporary / "b.json").write_text("new")
    assert content(tmp_path) == {"run/a.json": "old"}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "a.json", "old")
    with writing_folder(tmp_path / "run") as temporary:
        (temporary / "b.json").write_text("new")
        assert content(tmp_path / "run") == {"a.json": "old"}
    assert content(tmp_path) == {"run/b.json": "new"}
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path: Path) -> None:
    write_text(tmp_path / "run" / "a.json", "old")
    program = f"""
import os, signal
from pathlib import Path
from framepred.io.atomic import writing_folder
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
with writing_folder(Path({str(tmp_path / "run")!r})) as temporary:
    (temporary / "b.json").write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert not (tmp_path / "run").exists()
    with pytest.raises(RuntimeError), writing_folder(tmp_path / "run"):
        raise RuntimeError
    assert content(tmp_path) == {"run/a.json": "old"}


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FramepredError, match=r"cannot write .*file\.txt/a.json \((Not a directory|File exists)\)"):
        write_text(tmp_path / "file.txt" / "a.json", "new")
    with pytest.raises(FramepredError, match=r"cannot write .*file\.txt/run \(Not a directory\)"):  # noqa: SIM117
        with writing_folder(tmp_path / "file.txt" / "run"):
            pass


def make(path: Path, text: str) -> None:
    write_text(path / "framepred.json", text)


@pytest.mark.parametrize("raised", [FramepredError("bad"), OSError(28, "full"), RuntimeError("bug")])
def test_replacing_puts_the_old_folder_back_after_an_error(tmp_path: Path, raised: Exception) -> None:
    make(tmp_path / "run", "old")
    with pytest.raises(type(raised)), replacing(tmp_path / "run", overwrite=True):
        make(tmp_path / "run", "half")
        raise raised
    assert content(tmp_path) == {"run/framepred.json": "old"}


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), Interrupted("stopped")])
def test_replacing_keeps_old_and_new_after_an_interrupt_until_the_new_one_is_done(
    tmp_path: Path, raised: BaseException
) -> None:
    make(tmp_path / "run", "old")
    both = {"run/framepred.json": "half", ".run.old/framepred.json": "old"}
    for _ in range(2):
        with pytest.raises(type(raised)), replacing(tmp_path / "run", overwrite=True):
            make(tmp_path / "run", "half")
            raise raised
        assert content(tmp_path) == both
    with pytest.raises(FramepredError), replacing(tmp_path / "run", overwrite=False):
        raise FramepredError("resuming failed")
    assert content(tmp_path) == both
    with replacing(tmp_path / "run", overwrite=False):
        make(tmp_path / "run", "whole")
    assert content(tmp_path) == {"run/framepred.json": "whole"}


def test_replacing_puts_the_old_folder_back_where_an_interrupt_left_no_new_one(tmp_path: Path) -> None:
    make(tmp_path / "run", "old")
    with pytest.raises(KeyboardInterrupt), replacing(tmp_path / "run", overwrite=True):
        raise KeyboardInterrupt
    assert content(tmp_path) == {"run/framepred.json": "old"}
