"""What a killed replacement left aside is found by whatever reads it next."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from random_run import write_random_run

import framepred
from framepred.cli import cli
from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import to_read
from framepred.sources.actions_csv import write_actions
from framepred.sources.find import find_episode, find_episodes
from framepred.tokens.store import is_store
from framepred.video.write import write_video

ACTIONS = [0, 1, 2, 3, 0, 1, 2, 3]


def leave_aside(folder: Path, old: bool = True) -> None:
    """Bring about what a kill between the two renames of a replacement leaves."""
    if old:
        shutil.copytree(folder, folder.with_name(f".{folder.name}.replaced"))
    folder.rename(folder.with_name(f".{folder.name}.complete"))


def hidden(folder: Path) -> list[str]:
    return [p.name for p in folder.parent.iterdir() if p.name.startswith(".")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a run, a folder of videos with actions, and a token store."""
    base = tmp_path_factory.mktemp("made")
    write_random_run(base / "run")
    generator = torch.Generator().manual_seed(0)
    for name in "ab":
        frames = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
        write_video(base / "rec" / f"{name}.mp4", frames, 10.0, lossless=True)
        write_actions(base / "rec" / f"{name}.actions.csv", torch.tensor(ACTIONS), ["action"])
    words = ["tokenize", str(base / "rec"), "-o", str(base / "store"), "--tokenizer", str(base / "run"), "--json"]
    assert CliRunner().invoke(cli, words).exit_code == 0
    return base


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


SHORT = ("--set", "context=3", "--set", "horizon=2", "--set", "samples=1")
COMMANDS: list[tuple[str, list[str]]] = [
    ("run", ["info", "run"]),
    ("rec", ["info", "rec"]),
    ("store", ["info", "store"]),
    ("rec", ["info", "rec/a.mp4"]),
    ("run", ["rollout", "rec/a.mp4", "--model", "run", "--horizon", "2", "-o", "out.npz"]),
    ("rec", ["rollout", "rec/a.mp4", "--model", "run", "--horizon", "2", "-o", "out.npz"]),
    ("rec", ["surprise", "rec/a.mp4", "--model", "run", "-o", "out.npz"]),
    ("rec", ["plan", "rec/a.mp4", "--model", "run", "--goal-frame", "5", "--horizon", "2", "--candidates", "2"]),
    ("store", ["eval", "store", "--model", "run", *SHORT, "--set", "rollout=false"]),
    ("rec", ["eval", "named=rec", "--model", "run", *SHORT]),
    ("rec", ["tokenize", "rec", "-o", "store2", "--tokenizer", "run"]),
    ("run", ["tokenize", "rec", "-o", "store2", "--tokenizer", "run"]),
    ("store", ["learn", "store", "--model", "run", "-o", "out", "--steps", "0"]),
    ("run", ["export", "run", "-o", "out", "--format", "hf"]),
    ("rec", ["preview", "rec", "-o", "page.html"]),
    ("rec", ["convert", "rec", "-o", "set", "--to", "lerobot"]),
]


@pytest.mark.parametrize(("aside", "words"), COMMANDS, ids=lambda value: value if isinstance(value, str) else value[0])
def test_every_command_that_reads_finds_it(work: Path, aside: str, words: list[str]) -> None:
    leave_aside(work / aside)
    ended = CliRunner().invoke(cli, words)
    assert ended.exit_code == 0, ended.stderr
    assert f"{aside} had been left aside by a command that was killed, and is in its place again" in ended.stderr
    assert hidden(work / aside) == []


def test_python_finds_it_too(work: Path) -> None:
    readers: list[tuple[str, Callable[[], object]]] = [
        ("run", lambda: framepred.load_run("run")),
        ("run", lambda: framepred.load_tokenizer("run")),
        ("rec", lambda: framepred.read_video("rec/a.mp4").frames),
        ("rec", lambda: find_episodes(["rec"])[1]),
        ("store", lambda: is_store("store") or pytest.fail("no store")),
    ]
    for aside, read in readers:
        leave_aside(work / aside, old=False)
        with pytest.warns(FramepredWarning, match=f"{aside} had been left aside"):
            read()


def test_actions_beside_a_video_come_back_with_it(work: Path) -> None:
    leave_aside(work / "rec")
    with pytest.warns(FramepredWarning, match="rec had been left aside"):
        episode = find_episode("rec/b.mp4")
    loaded = episode.actions()
    assert loaded is not None and loaded[0].tolist() == ACTIONS


def test_the_old_one_alone_comes_back_and_through_a_link_too(work: Path) -> None:
    (work / "link").symlink_to("rec")
    (work / "rec").rename(work / ".rec.replaced")
    with pytest.warns(FramepredWarning, match="link had been left aside"):
        assert to_read("link/a.mp4").is_file()
    assert (work / "link").is_symlink() and (work / "rec" / "a.mp4").is_file()


def test_what_is_there_is_left_as_it_is(work: Path) -> None:
    for name in (".rec.complete", ".rec.replaced", ".other.complete", ".rec.partial"):
        (work / name).mkdir()
    before = sorted(p.name for p in work.iterdir())
    for path in ("rec", "rec/a.mp4", "rec/none.mp4", "no/such/folder", "", "..", "/none"):
        to_read(path)
    assert sorted(p.name for p in work.iterdir()) == before


def test_where_it_cannot_be_put_back_one_line_says_so(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_aside(work / "rec")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(FramepredError, match=r"cannot write rec \(Permission denied\): choose a writable folder"):
        find_episodes(["rec"])
