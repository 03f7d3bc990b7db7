"""What a run was begun with stays: what is held out, and what its ids mean, whatever videos come or go."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_square, tiny_recipe

from framepred.config.recipe import Recipe, apply_settings
from framepred.errors import FramepredError
from framepred.sources.actions_csv import write_actions
from framepred.sources.find import find_episodes
from framepred.tokens.store import TokenEpisode, read_store
from framepred.training.held_out import HeldOut, divide_episodes, divide_videos, episodes_of, stored_held_out
from framepred.training.job import Job
from framepred.training.pipeline import train
from framepred.training.unfinished import stored_layout
from framepred.video.write import write_video
from framepred.world.run import load_run

pytestmark = pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning")


def clip(folder: Path, name: str, seed: int, unit: float = 1.0) -> None:
    frames, ids = moving_square(seed, 12)
    write_video(folder / f"{name}.mp4", frames, 10.0, lossless=True)
    write_actions(folder / f"{name}.actions.csv", (ids[:, None] - 1.5) * unit, ["push"])


def episode(name: str, content: str = "", frames: int = 6) -> TokenEpisode:
    return TokenEpisode(name, f"/{name}.mp4", 10.0, torch.arange(frames).view(-1, 1, 1), None, content=content)


def names(part: list[tuple[TokenEpisode, str]]) -> list[tuple[str, int]]:
    return [(e.name, len(e.tokens)) for e, _ in part]


def test_what_is_held_out_is_known_by_its_content_and_without_by_its_place() -> None:
    held = [HeldOut("a", "/a.mp4", content="A"), HeldOut("d", "/d.mp4"), HeldOut("e", "/e.mp4", 4, "E")]
    every = [
        (episode("moved", "A"), "s"), (episode("a", "replaced"), "s"), (episode("b", "B"), "s"),
        (episode("d", "D"), "s"), (episode("e", "E"), "s"),
    ]  # fmt: skip
    kept, apart = divide_episodes(every, held)
    assert names(kept) == [("a", 6), ("b", 6), ("e", 4)]
    assert names(apart) == [("moved", 6), ("d", 6), ("e", 2)]
    assert apart[2][0].tokens.flatten().tolist() == [4, 5]


def test_the_same_pictures_are_never_on_both_sides(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        clip(tmp_path, name, seed)
    clip(tmp_path, "c", 0, unit=2.0)
    a, b, c = find_episodes([tmp_path])
    assert a.content == c.content
    kept, apart = divide_videos([a, b, c], [HeldOut("a", a.key, content=a.content)])
    assert (kept, apart) == ([b], [a, c])


def steps(count: int) -> Recipe:
    return apply_settings(
        tiny_recipe(),
        [f"training.tokenizer_steps={min(count, 2)}", f"training.predictor_steps={count}", "predictor.action_bins=8"],
    )


def do(source: Path, out: Path, count: int, **more: Any) -> None:
    for _ in train(Job([str(source)], out, steps(count), **more)):
        pass


def trained(run: Path, source: Path) -> tuple[set[str], set[str]]:
    """Return the contents that a run trains on and holds out."""
    episodes = episodes_of([str(run / "tokens")], None, find_episodes([source]))
    parts = divide_episodes(episodes, stored_held_out(run) or ())
    return tuple({e.content for e, _ in part} for part in parts)  # type: ignore[return-value]


def test_resuming_with_other_videos_moves_neither_the_bins_nor_what_is_held_out(tmp_path: Path) -> None:
    source, run = tmp_path / "v", tmp_path / "run"
    for i in range(4):
        clip(source, f"v{i}", i)
    do(source, run, 2)
    layout, held = stored_layout(run), stored_held_out(run)
    assert layout == load_run(run).layout
    assert held is not None
    assert len(held) == 1
    was_kept, was_held = trained(run, source)
    # Moved, one replaced, many more with actions of another size: by their names, others would be held out now.
    source = source.rename(tmp_path / "moved")
    gone = next(p for p in sorted(source.glob("*.mp4")) if p.stem != held[0].name)
    clip(source, gone.stem, 77)
    for i in range(30, 36):
        clip(source, f"w{i}", i, unit=100.0)
    do(source, run, 4, resume=True)
    assert stored_layout(run) == load_run(run).layout == layout
    assert stored_held_out(run) == held
    kept, apart = trained(run, source)
    assert apart == was_held
    assert len(kept) == 3 + 6
    assert len(kept & was_kept) == 2


def test_ids_that_a_run_does_not_know_are_one_line_and_leave_it_as_it_was(tmp_path: Path) -> None:
    source, run = tmp_path / "v", tmp_path / "run"
    for i in range(2):
        clip(source, f"v{i}", i)
        (source / f"v{i}.actions.csv").write_text("move\n" + "left\nright\n" * 6)
    do(source, run, 2)
    space = load_run(run).layout.actions
    assert space is not None
    assert space.names.values == ("left", "right")  # type: ignore[attr-defined]
    clip(source, "new", 9)
    (source / "new.actions.csv").write_text("move\n" + "left\njump\n" * 6)
    before = (run / "model.safetensors").read_bytes(), (run / "recipe.toml").read_bytes()
    with pytest.raises(FramepredError, match="has the action 'jump', which is not known: give one of left, right"):
        do(source, run, 4, resume=True)
    assert ((run / "model.safetensors").read_bytes(), (run / "recipe.toml").read_bytes()) == before
    (source / "new.actions.csv").unlink()
    do(source, run, 4, resume=True)


def test_a_second_trainer_of_a_run_is_refused(tmp_path: Path) -> None:
    clip(tmp_path / "v", "a", 0)
    run = tmp_path / "run"
    run.mkdir()
    program = f"from pathlib import Path\nfrom framepred.io.lock import locked\nwith locked(Path({str(run)!r})):\n"
    with subprocess.Popen([sys.executable, "-c", f"{program} print(1, flush=True); input()"], stdin=-1, stdout=-1) as p:
        assert p.stdout is not None
        p.stdout.readline()
        with pytest.raises(FramepredError, match=r"another framepred is writing .*run: wait until it has ended"):
            do(tmp_path / "v", run, 1)
        assert list(run.iterdir()) == []
        p.kill()


def test_the_same_video_twice_in_the_sources_is_trained_on_once(tmp_path: Path) -> None:
    source, run = tmp_path / "v", tmp_path / "run"
    for i in range(3):
        clip(source, f"v{i}", i)
    shutil.copytree(source, tmp_path / "copy")
    for _ in train(Job([str(source), str(tmp_path / "copy")], run, steps(1))):
        pass
    assert len(read_store(run / "tokens")) == 3
    about = json.loads((run / "start.json").read_text())
    assert (about["videos"], len(about["held_out"])) == (3, 1)
