"""A folder is replaced by one that is whole, or not at all; unfinished work is gone on with where that is right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.io.atomic import write_text, writing_folder
from framepred.io.lock import locked
from framepred.io.outputs import check_replaceable, replacing


def make(path: Path, text: str) -> None:
    write_text(path / "framepred.json", text)


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished folder, alone in its own."""
    make(tmp_path / "run", "old")
    return tmp_path / "run"


def test_the_old_folder_is_there_until_the_new_one_is_whole(run: Path) -> None:
    with replacing(run, True, keep=["*"]) as folder:
        make(folder, "new")
        assert content(run) == {"framepred.json": "old"}
    assert content(run.parent) == {"run/framepred.json": "new"}


def test_where_nothing_is_there_the_folder_itself_is_written(tmp_path: Path) -> None:
    for overwrite in (False, True):
        (tmp_path / f"{overwrite}").mkdir()
        for name in (f"{overwrite}", f"new-{overwrite}"):
            with replacing(tmp_path / name, overwrite) as folder:
                assert folder == tmp_path / name


ENDS = [FramepredError("bad"), OSError(28, "full"), RuntimeError("bug"), KeyboardInterrupt(), Interrupted("stopped")]


@pytest.mark.parametrize("raised", ENDS, ids=lambda e: type(e).__name__)
def test_whatever_ends_it_the_old_folder_is_as_it_was(run: Path, raised: BaseException) -> None:
    with pytest.raises(type(raised)), replacing(run, True, keep=["worth*"]) as folder:
        make(folder, "half")
        raise raised
    assert content(run.parent) == {"run/framepred.json": "old"}
    with pytest.raises(type(raised)), replacing(run, True, keep=["worth*"]) as folder:
        write_text(folder / "worth.1", "half")
        raise raised
    assert content(run) == {"framepred.json": "old"}
    with pytest.warns(FramepredWarning, match="going on with .*run.*delete it to begin anew"):  # noqa: SIM117
        with replacing(run, False, keep=["worth*"], resume=True) as folder:
            assert content(folder) == {"worth.1": "half"}
            make(folder, "new")
    assert content(run.parent) == {"run/worth.1": "half", "run/framepred.json": "new"}


def interrupt(run: Path, job: str = "") -> None:
    with pytest.raises(KeyboardInterrupt), replacing(run, True, keep=["worth*"], job=job, resume=bool(job)) as folder:
        write_text(folder / "worth.1", job)
        raise KeyboardInterrupt


def test_to_begin_anew_leaves_nothing_of_what_was_unfinished(run: Path) -> None:
    interrupt(run)
    with replacing(run, True, keep=["worth*"]) as folder:
        assert content(folder) == {}
        make(folder, "new")
    assert content(run.parent) == {"run/framepred.json": "new"}


def test_one_job_goes_on_and_another_does_not(run: Path) -> None:
    interrupt(run, "a")
    with pytest.warns(FramepredWarning, match="going on"), pytest.raises(KeyboardInterrupt):  # noqa: SIM117
        with replacing(run, True, keep=["worth*"], job="a", resume=True) as folder:
            assert content(folder) == {"worth.1": "a"}
            raise KeyboardInterrupt
    with replacing(run, True, keep=["worth*"], job="b", resume=True) as folder:
        assert content(folder) == {}
        make(folder, "b")
    assert content(run.parent) == {"run/framepred.json": "b"}


@pytest.mark.parametrize(("job", "says"), [("", "give --resume to go on"), ("a", "give the same --overwrite to go on")])
def test_without_overwrite_unfinished_work_is_neither_deleted_nor_passed_over(run: Path, job: str, says: str) -> None:
    interrupt(run, job)
    before = content(run.parent)
    with pytest.raises(FramepredError, match=says), replacing(run, False, keep=["worth*"], job=job):
        pass
    assert content(run.parent) == before


def test_the_unfinished_folders_of_other_names_are_left_alone(run: Path) -> None:
    others = [run.parent / f".run{end}" for end in (".x.partial", "2.partial", ".partial.partial", ".partial-x")]
    for other in others:
        make(other, "mine")
    with replacing(run, True, keep=["worth*"]) as folder:
        make(folder, "new")
    assert all(content(other) == {"framepred.json": "mine"} for other in others)


KILLED = """
import os, signal, sys
from pathlib import Path
from framepred.io.atomic import writing_folder
from framepred.io.outputs import replacing

left, real = int(sys.argv[3]), os.replace

def replace(*names):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*names)

os.replace = replace
path = Path(sys.argv[1])
with replacing(path, True) if sys.argv[2] == "replacing" else writing_folder(path) as folder:
    (folder / "framepred.json").write_text("new")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["replacing", "writing_folder"])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_kill_at_any_rename_loses_nothing(run: Path, how: str, at: int) -> None:
    command = [sys.executable, "-c", KILLED, str(run), how, str(at)]
    assert subprocess.run(command, check=False).returncode == -9
    # Whatever the next command for that folder is, it first puts in order what is there.
    with pytest.raises(RuntimeError), writing_folder(run):
        raise RuntimeError
    assert content(run.parent) == {"run/framepred.json": "old" if at == 1 else "new"}


def test_one_writer_at_a_time(run: Path) -> None:
    interrupt(run)
    (left,) = (p for p in run.parent.iterdir() if p != run)
    before = content(run.parent)
    with locked(left):
        for resume in (False, True):
            with pytest.raises(FramepredError, match="another framepred is writing"):  # noqa: SIM117
                with replacing(run, not resume, keep=["worth*"], resume=resume):
                    pass
        with pytest.raises(FramepredError, match="another framepred is writing"), writing_folder(run):
            pass
    assert content(run.parent) == before


def test_what_cannot_or_must_not_be_replaced_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *inputs: str) -> str:
        with pytest.raises(FramepredError) as caught:
            check_replaceable(path, *inputs)
        return str(caught.value)

    check_replaceable(run)
    check_replaceable(run.parent / "missing")
    assert "holds the input" in refused(run, str(run / "framepred.json"))
    (run.parent / "link").symlink_to(run)
    assert "holds the input" in refused(run, str(run.parent / "link"))
    assert "is a file" in refused(run / "framepred.json")
    (run / "deep").mkdir()
    monkeypatch.chdir(run / "deep")
    for path in (Path(".."), run, run.parent / "link", Path("../../run")):
        assert "the folder you are in" in refused(path)
    monkeypatch.chdir(run.parent)
    (run / ".git").mkdir()
    assert "did not make" in refused(run)


@pytest.mark.parametrize(
    ("names", "ours"),
    [
        (["recipe.toml", "metrics.jsonl", "resume-tokenizer.safetensors", ".recipe.toml.partial"], True),
        (["config.json", "model.safetensors", "README.md"], True),
        (["recipe.toml", "holiday.mp4"], False),
        (["recipe.toml", "notes.txt"], False),
        (["labels.json", "README.md"], False),
    ],
)
def test_only_what_framepred_made_is_replaced(tmp_path: Path, names: list[str], ours: bool) -> None:
    for name in names:
        write_text(tmp_path / "out" / name, "x")
    if ours:
        check_replaceable(tmp_path / "out")
    else:
        with pytest.raises(FramepredError, match="did not make"):
            check_replaceable(tmp_path / "out")


def test_a_folder_that_cannot_be_renamed_leaves_the_old_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def refuse(source: Path, target: Path) -> None:
        if Path(target) == run:
            raise OSError(16, "busy")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(FramepredError, match="busy"), replacing(run, True) as folder:
        make(folder, "new")
    monkeypatch.undo()
    with pytest.raises(RuntimeError), writing_folder(run):
        raise RuntimeError
    assert content(run) == {"framepred.json": "old"}
