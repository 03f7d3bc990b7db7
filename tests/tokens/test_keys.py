"""A store knows videos by what they hold: moved, renamed, copied, replaced; and one writer at a time."""

import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import doubles
import pytest
import torch

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.find import find_episodes
from framepred.tokens.store import TokenEpisode, read_store, read_store_info
from framepred.tokens.tokenize import tokenize
from framepred.tokens.writer import only_writer
from framepred.video.write import write_video

STORE = "from pathlib import Path\nfrom framepred.tokens.writer import only_writer\n"


def video(path: Path, grey: int, frames: int = 9) -> Path:
    write_video(path, torch.full((frames, 3, 16, 16), grey, dtype=torch.uint8), 10.0, lossless=True)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate("abc"):
        video(tmp_path / "v" / f"{name}.mp4", 40 * i)
    return tmp_path / "v"


def run(*sources: Path, out: Path, **more: object) -> int:
    """Tokenize; return how many frames were encoded."""
    steps = tokenize(find_episodes(sources), out, doubles.Blocks(), "double", "a" * 64, **more)  # type: ignore[arg-type]
    return max((step.frames for step in steps), default=0)


def greys(store: Path) -> dict[str, int]:
    return {e.name: brightness(e) for e in read_store(store)}


def brightness(episode: TokenEpisode) -> int:
    return int(episode.tokens.flatten()[0])


def test_a_folder_that_was_moved_or_renamed_is_known(folder: Path, tmp_path: Path) -> None:
    assert run(folder, out=tmp_path / "s") == 27
    moved = folder.rename(tmp_path / "elsewhere")
    (moved / "a.mp4").rename(moved / "other name.mp4")
    assert run(moved, out=tmp_path / "s") == 0
    assert len(read_store(tmp_path / "s")) == 3


def test_the_same_under_two_names_is_taken_once_in_every_shard(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "z.mp4")
    shutil.copy(folder / "b.mp4", tmp_path / "b again.mp4")
    sources = folder, tmp_path / "b again.mp4"
    with pytest.warns(FramepredWarning, match=r"z\.mp4 holds what .*a\.mp4 holds, and 1 more: taken once"):
        assert run(*sources, out=tmp_path / "s") == 27
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramepredWarning)
        for part in (1, 2, 1, 2):
            run(*sources, out=tmp_path / "parts", shard=(part, 2))
        run(tmp_path / "b again.mp4", out=tmp_path / "parts")
    assert greys(tmp_path / "parts") == greys(tmp_path / "s")
    assert len(greys(tmp_path / "s")) == 3


def test_columns_in_another_order_are_the_same_actions(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "z.mp4")
    rows = torch.tensor([[0.5, 2.0]] * 9)
    write_actions(folder / "a.actions.csv", rows, ["steer", "gas"])
    write_actions(folder / "z.actions.csv", rows.flip(1), ["gas", "steer"])
    with pytest.warns(FramepredWarning, match="taken once"):
        assert run(folder, out=tmp_path / "s") == 27


def test_a_video_that_was_replaced_is_done_anew_and_the_old_one_goes(folder: Path, tmp_path: Path) -> None:
    run(folder, out=tmp_path / "s")
    before = greys(tmp_path / "s")
    size = (folder / "b.mp4").stat().st_size
    video(folder / "b.mp4", 200)
    assert abs((folder / "b.mp4").stat().st_size - size) < 100
    assert run(folder, out=tmp_path / "s") == 9
    after = greys(tmp_path / "s")
    assert sorted(after) == ["a", "b", "c"]
    assert after["b"] != before["b"]
    assert {k: v for k, v in after.items() if k != "b"} == {k: v for k, v in before.items() if k != "b"}
    # One that is broken now takes no one's place.
    (folder / "c.mp4").write_bytes(b"broken")
    with pytest.warns(FramepredWarning, match=r"skipped: .*c\.mp4"):
        run(folder, out=tmp_path / "s")
    assert greys(tmp_path / "s") == after


@pytest.mark.parametrize("moved", [False, True])
def test_actions_that_come_later_or_change_are_stored(folder: Path, tmp_path: Path, moved: bool) -> None:
    run(folder, out=tmp_path / "s")
    source = folder.rename(tmp_path / "moved") if moved else folder
    for value in (1, 2):
        write_actions(source / "b.actions.csv", torch.full((9,), value), ["push"])
        assert run(source, out=tmp_path / "s") == 9
        stored = {e.name: e.actions for e in read_store(tmp_path / "s")}
        assert (stored["a"], stored["c"], stored["b"].tolist()) == (None, None, [value] * 9)
    (source / "b.captions.csv").write_text("start,end,text\n0,0.5,grey\n")
    assert run(source, out=tmp_path / "s") == 9
    assert [e.captions[0].text for e in read_store(tmp_path / "s") if e.captions] == ["grey"]


def test_the_same_frames_with_other_actions_are_another_episode(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "a.mp4", folder / "z.mp4")
    for name, value in (("a", 0), ("z", 1)):
        write_actions(folder / f"{name}.actions.csv", torch.full((9,), value), ["push"])
    assert run(folder, out=tmp_path / "s") == 36
    one, other = (e for e in read_store(tmp_path / "s") if e.name in "az")
    assert one.content == other.content
    assert one.key != other.key


@pytest.mark.parametrize(("first", "second"), [(5.0, 10.0), (5.0, None), (None, 5.0)])
def test_rates_are_never_mixed(folder: Path, tmp_path: Path, first: float | None, second: float | None) -> None:
    run(folder / "a.mp4", out=tmp_path / "s", fps=first)
    assert read_store_info(tmp_path / "s").fps == (first or 0.0)
    with pytest.raises(FramepredError, match=r"token store .* is of .*, these are of .*: give the same --fps"):
        run(folder, out=tmp_path / "s", fps=second)
    assert run(folder, out=tmp_path / "s", fps=first) > 0
    assert len({e.fps for e in read_store(tmp_path / "s")}) == 1


def test_episodes_that_keep_their_rate_are_named(folder: Path, tmp_path: Path) -> None:
    write_actions(folder / "b.actions.csv", torch.ones(9, dtype=torch.int64), ["push"])
    with pytest.warns(FramepredWarning, match=r"1 of 3 episodes are not resampled to 5 frames a second"):
        run(folder, out=tmp_path / "s", fps=5.0)


def test_words_of_later_files_join_the_names_of_the_store(folder: Path, tmp_path: Path) -> None:
    def spell(name: str, *words: str) -> None:
        (folder / f"{name}.actions.csv").write_text("move\n" + "\n".join((words * 9)[:9]) + "\n")

    def said() -> dict[str, list[str]]:
        values = read_store_info(tmp_path / "s").action_names.values  # type: ignore[attr-defined]
        return {e.name: [values[i] for i in e.actions[:2].tolist()] for e in read_store(tmp_path / "s")}

    spell("a", "right", "stay")
    spell("b", "stay", "up")
    run(folder / "a.mp4", folder / "b.mp4", out=tmp_path / "s")
    assert said() == {"a": ["right", "stay"], "b": ["stay", "up"]}
    spell("c", "down", "up")
    run(folder, out=tmp_path / "s")
    assert said() == {"a": ["right", "stay"], "b": ["stay", "up"], "c": ["down", "up"]}
    assert read_store_info(tmp_path / "s").action_names.values == ("right", "stay", "up", "down")  # type: ignore[attr-defined]


def test_a_store_that_two_jobs_wrote_gives_every_episode_once(folder: Path, tmp_path: Path) -> None:
    run(folder, out=tmp_path / "s")
    (file,) = (tmp_path / "s").glob("*.parquet")
    shutil.copy(file, file.with_name("episodes-00001.parquet"))
    assert len(read_store(tmp_path / "s")) == 3


def holder(store: Path, part: str) -> subprocess.Popen[str]:
    program = f"{STORE}with only_writer(Path({str(store)!r}), {part}):\n    print('held', flush=True)\n    input()"
    made = subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True)
    assert made.stdout is not None
    assert made.stdout.readline() == "held\n"
    return made


@pytest.mark.parametrize(
    ("held", "wanted", "free"),
    [
        ((1, 1), (1, 1), False),
        ((1, 1), (2, 3), False),
        ((1, 2), (1, 1), False),
        ((1, 2), (1, 2), False),
        ((1, 2), (2, 2), True),
        ((1, 2), (2, 3), False),
    ],
)
def test_one_writer_at_a_time(
    folder: Path, tmp_path: Path, held: tuple[int, int], wanted: tuple[int, int], free: bool
) -> None:
    store = tmp_path / "s"
    other = holder(store, repr(held))
    try:
        if free:
            assert run(folder, out=store, shard=wanted) > 0
        else:
            with pytest.raises(FramepredError, match=r"another framepred is writing .*: wait until it has ended"):
                run(folder, out=store, shard=wanted)
            assert not list(store.glob("*.parquet"))
    finally:
        # A writer that is killed blocks no one.
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert run(folder, out=store) == 27 - (9 if free else 0)
    assert not [p.name for p in store.iterdir() if p.name.startswith(".")]


def test_who_writes_may_write_again(tmp_path: Path) -> None:
    began = time.monotonic()
    with only_writer(tmp_path / "s"), only_writer(tmp_path / "s"):
        pass
    assert time.monotonic() - began < 5
    assert not (tmp_path / "s").exists()
