"""Nothing finished is lost before its successor is whole: every writer, every way that a program ends."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from framepred.errors import FramepredError
from framepred.io.atomic import write_text, writing, writing_folder
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


def test_a_place_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FramepredError, match=r"cannot write .*file\.txt/a.json \((Not a directory|File exists)\)"):
        write_text(tmp_path / "file.txt" / "a.json", "new")
    with pytest.raises(FramepredError, match=r"cannot write .*file\.txt/run \(Not a directory\)"):  # noqa: SIM117
        with writing_folder(tmp_path / "file.txt" / "run"):
            pass


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (OSError(errno.ENOSPC, "full"), r"cannot write .*a\.txt \(full\): free space or choose another folder$"),
        (SafetensorError("I/O error: No space left (os error 28)"), r"\(No space left on device\): free space or"),
        (shutil.Error([("a", "b", "[Errno 28] No space left on device")]), r"\(No space left on device\): free space"),
        (OSError(errno.EACCES, "denied"), r"\(denied\): choose a writable folder$"),
        (OSError(errno.EIO, "broken"), r"\(broken\): choose another name or folder$"),
        (
            PermissionError(errno.EACCES, "denied", "/other/source.bin"),
            r"^/other/source\.bin: denied; .*a\.txt needs it$",
        ),
    ],
)
def test_the_line_about_a_refused_write_says_what_is_known_and_no_more(
    tmp_path: Path, error: Exception, says: str
) -> None:
    with pytest.raises(FramepredError, match=says), writing(tmp_path / "a.txt"):
        raise error


def test_a_link_stays_one_and_the_file_that_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.txt").write_text("old")
    (tmp_path / "a.txt").symlink_to("far/a.txt")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "new"
    write_text(tmp_path / "far" / "run" / "a.json", "old")
    (tmp_path / "run").symlink_to("far/run")
    with writing_folder(tmp_path / "run") as temporary:
        (temporary / "a.json").write_text("new")
    assert (tmp_path / "run").is_symlink()
    assert (tmp_path / "far" / "run" / "a.json").read_text() == "new"
    assert {p.name for p in (tmp_path / "far").iterdir()} == {"a.txt", "run"}
