"""`framepred plan`: what it writes can be read again, and what does not fit is one line."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

pytest.importorskip("gymnasium")

from PIL import Image
from random_run import write_random_run
from square import ID, registered

from framepred.cli import cli
from framepred.planning.plan import plan_after, start_in_clip
from framepred.planning.search import Search
from framepred.sources.actions_csv import read_actions
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.run import load_run

SMALL = ("--candidates", "4", "--rounds", "1", "--horizon", "3")


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


def plan(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["plan", *map(str, arguments), *SMALL])


def test_a_plan_is_written_as_a_film_with_its_actions(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    clip, out = clips_dir / "clip0.mp4", tmp_path / "plan.mp4"
    done = plan(clip, "--model", tiny_run, "--goal-frame", 9, "-o", out, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    actions, names = read_actions(out.with_suffix(".actions.csv"))
    frames = read_video(out).frames
    assert actions.tolist() == facts["actions"] and names == ("action",) and facts["reached"] is None
    assert 1 <= len(actions) == len(facts["distance"]) == facts["steps"] == len(frames) - 1
    assert torch.equal(frames[0], read_video(clip).frames[3])
    # Greedy, what is shown is what was foreseen.
    assert facts["distance"] == pytest.approx(facts["expected_distance"], abs=1e-6)
    again = plan(clip, "--model", tiny_run, "--goal-frame", 9, "-o", out)
    assert again.exit_code == 1 and "exists already: give --overwrite" in again.output
    again = plan(clip, "--model", tiny_run, "--goal-frame", 9, "-o", tmp_path / "b.mp4", "--json")
    assert json.loads(again.stdout)["actions"] == facts["actions"]


def test_a_film_that_cannot_be_written_leaves_no_actions(
    clips_dir: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("framepred.planning.plan.write_video", full)
    done = plan(clips_dir / "clip0.mp4", "--model", tiny_run, "--goal-frame", 9, "-o", tmp_path / "plan.mp4")
    assert done.exit_code == 1 and "No space left" in done.stderr
    assert not list(tmp_path.iterdir())


def test_plans_are_followed_in_an_environment(tiny_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "real.mp4"
    done = plan("--env", ID, "--model", tiny_run, "--goal-steps", 3, "-o", out, "--json", "--budget", 5, "--seed", 3)
    assert done.exit_code == 0, done.output
    facts, frames = json.loads(done.stdout), read_video(out).frames
    assert facts["steps"] == len(frames) - 1 and (facts["reached"] or facts["steps"] == 5)
    # What really happened: exact squares on an exact ground.
    assert {tuple(pixel) for pixel in frames.movedim(1, -1).reshape(-1, 3).tolist()} == {(30,) * 3, (250, 220, 40)}


def test_a_goal_may_be_a_callable(clips_dir: Path, tiny_run: Path) -> None:
    frames = read_video(clips_dir / "clip0.mp4").frames[:4]
    planned = plan_after(
        load_run(tiny_run), frames, None, lambda made: -made.float().mean((1, 2, 3)), Search(candidates=4, horizon=3)
    )
    assert planned.distances[-1] == -planned.frames[-1].float().mean()
    assert planned.distances[-1] == planned.distances.min()


def test_what_does_not_fit_is_one_line(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    clip, model = clips_dir / "clip0.mp4", ("--model", tiny_run)
    Image.new("RGB", (32, 64)).save(tmp_path / "small.png")
    (tmp_path / "text.png").write_text("no picture")
    cases: dict[str, tuple[Any, ...]] = {
        "small.png is 64x32 pixels, the world shows 64x64": (clip, *model, "--goal", tmp_path / "small.png"),
        "text.png cannot be read as a picture": (clip, *model, "--goal", tmp_path / "text.png"),
        "none.png does not exist": (clip, *model, "--goal", tmp_path / "none.png"),
        "cannot be read as a picture: give a PNG, JPEG or WebP file, or a video and its": (
            clip,
            *model,
            "--goal",
            clip,
        ),
        "there is no frame 99": (clip, *model, "--goal-frame", 99),
        "a plan needs a goal": (clip, *model),
        "give a VIDEO or --env ENV": (clip, *model, "--env", ID, "--goal-steps", 3),
        "--goal-steps sets a goal in --env": (clip, *model, "--goal-steps", 3),
        "test/Five-v0 takes Discrete(5), the run knows 4": ("--env", "test/Five-v0", *model, "--goal-steps", 3),
        "cannot make environment 'Nowhere-v0'": ("--env", "Nowhere-v0", *model, "--goal-steps", 3),
        "candidates = 0 is not allowed": (clip, *model, "--goal-frame", 5, "--candidates", 0),
        "unknown ending '.gif'": (clip, *model, "--goal-frame", 5, "-o", tmp_path / "film.gif"),
        "is no run": (clip, "--model", tiny_run / "tokenizer", "--goal-frame", 5),
    }
    for says, arguments in cases.items():
        done = CliRunner().invoke(cli, ["plan", *SMALL, *map(str, arguments)])
        (line,) = done.stderr.strip().splitlines()
        assert done.exit_code == 1 and line.startswith("framepred: ") and says in line, (says, done.output)
    assert not list(tmp_path.glob("*.csv")) and not list(tmp_path.glob("*.mp4"))


def test_a_goal_of_another_world_is_refused(tiny_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(noise.numpy()).save(tmp_path / "noise.png")
    done = plan(
        clips_dir / "clip0.mp4", "--model", tiny_run, "--goal", tmp_path / "noise.png", "-o", tmp_path / "a.mp4"
    )
    assert done.exit_code == 1 and "the goal is no picture of this world" in done.stderr


def test_a_run_without_actions_is_refused(clips_dir: Path, tmp_path: Path) -> None:
    run = write_random_run(tmp_path / "run")
    about = json.loads((run / "framepred.json").read_text())
    about["actions"], about["layout"]["action_slots"], about["vocabulary"]["action"] = None, 0, [64, 64]
    about["vocabulary"]["special"]["no_action"] = 64
    (run / "framepred.json").write_text(json.dumps(about))
    done = plan(clips_dir / "clip0.mp4", "--model", run, "--goal-frame", 5, "-o", tmp_path / "a.mp4")
    assert done.exit_code == 1 and "the run was trained without actions" in done.stderr


def test_what_a_plan_is_made_of_is_never_overwritten(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.actions.csv", "other.actions.csv"):
        shutil.copy(clips_dir / f"clip0{name[name.index('.') :]}", tmp_path / name)
    clip, more = tmp_path / "clip.mp4", ("--model", tiny_run, "--goal-frame", 9, "--overwrite")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for arguments, name in (
        (("-o", clip), "clip.mp4"),
        (("-o", tmp_path / "clip.mkv"), "clip.actions.csv"),
        (("-o", tmp_path / "other.mp4", "--actions", tmp_path / "other.actions.csv"), "other.actions.csv"),
    ):
        done = plan(clip, *more, *arguments)
        assert done.exit_code == 1 and f"{name}: choose another -o" in done.stderr, done.output
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_where_the_film_fails_the_old_plan_stays_whole(
    clips_dir: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (clips_dir / "clip0.mp4", "--model", tiny_run, "-o", tmp_path / "plan.mp4", "--overwrite")
    assert plan(*words, "--goal-frame", 9).exit_code == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("framepred.planning.plan.write_video", full)
    assert plan(*words, "--goal-frame", 5, "--seed", 4).exit_code == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_given_actions_belong_to_the_frames_of_the_file(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    """A video of another rate than the run's is not resampled under the actions that are given with it."""
    frames = read_video(clips_dir / "clip0.mp4").frames
    write_video(tmp_path / "fast.mp4", frames, 30.0, lossless=True)
    actions = str(clips_dir / "clip0.actions.csv")
    shown, known = start_in_clip(load_run(tiny_run), tmp_path / "fast.mp4", actions, 2, 4)
    assert torch.equal(shown, frames[2:6])
    assert known is not None and torch.equal(known, read_actions(Path(actions))[0][2:5])
    out = tmp_path / "plan.mp4"
    done = plan(tmp_path / "fast.mp4", "--model", tiny_run, "--goal-frame", 9, "--actions", actions, "-o", out)
    assert done.exit_code == 0 and "its own frames are read, to which actions belong" in done.stderr
    assert torch.equal(read_video(out).frames[0], frames[3])
