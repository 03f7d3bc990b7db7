"""What training starts from: nothing, a run with its actions or others, and the shipped run where nothing is said."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import FPS, moving_square, tiny_recipe

from framepred.cli import cli
from framepred.config.recipe import apply_settings
from framepred.errors import FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import find_videos
from framepred.tokens.store import read_store
from framepred.training.held_out import HeldOut, divided
from framepred.training.initialisation import make_model, shaped_like
from framepred.training.job import Job
from framepred.training.pipeline import train
from framepred.training.start import Start, fitting_run, held_out_of, look_at_videos
from framepred.training.windows import step_generator
from framepred.video.write import write_video
from framepred.world.run import load_run


def folder_of(where: Path, lengths: list[int], names: tuple[str, ...] = (), continuous: bool = False) -> Path:
    """Write a video for each length, with actions of these names."""
    for i, length in enumerate(lengths):
        frames, actions = moving_square(i, length)
        write_video(where / f"v{i}.mp4", frames, FPS, lossless=True)
        if names:
            values = torch.randn(length, len(names)) if continuous else actions
            write_actions(where / f"v{i}.actions.csv", values, list(names))
    return where


def said(*arguments: object) -> tuple[str, dict[str, Any]]:
    """Train by the command line; return what it says and RUN/start.json."""
    result = CliRunner().invoke(cli, ["train", *map(str, arguments)], prog_name="framepred")
    assert result.exit_code == 0, (result.stderr, result.exception)
    out = Path(str(arguments[arguments.index("-o") + 1]))
    return result.stderr, json.loads((out / "start.json").read_text())


SMALL = ("--steps", 1, "--set", "predictor.batch_size=1", "--set", "training.validation_batches=1")


def test_where_nothing_is_said_the_shipped_run_is_where_it_starts(tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", [14, 14])
    words, start = said(videos, "-o", tmp_path / "run", *SMALL)
    assert start["origin"] == "doom-64"
    assert "from doom-64" in words
    assert (start["videos"], start["frames"], start["steps"]) == (2, 28, {"predictor": 1})
    assert len(start["held_out"]) == 1
    run, shipped = load_run(tmp_path / "run"), load_run("doom-64")
    assert run.tokenizer_sha256 == shipped.tokenizer_sha256
    recipe = (tmp_path / "run" / "recipe.toml").read_text()
    assert "learning_rate = 0.0002" in recipe
    assert "kv_heads = 1" in recipe
    # The same command resumes, from what it was started from.
    _, again = said(videos, "-o", tmp_path / "run", "--resume", "--steps", 2)
    assert again["origin"] == "doom-64"


@pytest.mark.parametrize("option", [("--init-from", "none"), ("--recipe", "tiny")])
def test_what_is_said_means_what_it_says(option: tuple[str, str], tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", [8, 8])
    tiny = ("predictor.width=16", "predictor.layers=1", "predictor.heads=2", "predictor.kv_heads=2",
            "tokenizer.width=8", "tokenizer.batch_size=2", "predictor.window=2")  # fmt: skip
    words, start = said(videos, "-o", tmp_path / "run", *option, *SMALL, *(w for s in tiny for w in ("--set", s)))
    assert start["origin"] is None
    assert "from nothing" in words
    assert set(start["steps"]) == {"tokenizer", "predictor"}


def test_videos_with_the_actions_of_a_shipped_run_start_from_it(tmp_path: Path) -> None:
    of_a_car = ("steer", "gas", "brake")
    for names, continuous, origin in (
        (of_a_car, True, "racing-64"), (of_a_car[:2], True, "doom-64"), (("action",), False, "doom-64"),
        ((), False, "doom-64"),
    ):  # fmt: skip
        where = tmp_path / str(len(names))
        where.mkdir()
        assert fitting_run([str(folder_of(where, [4, 5], names, continuous))], (64, 64)) == origin


def test_a_run_of_another_size_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    videos = str(folder_of(tmp_path / "videos", [4]))
    assert fitting_run([videos], (64, 64)) == "doom-64"
    assert fitting_run([videos], (64, 96)) is None


def test_of_a_single_long_video_the_end_is_held_out(tiny_run: Path, tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", [100], ("action",))
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=1", "training.validate_every=1"])
    start, *steps = train(Job([str(videos)], tmp_path / "run", recipe, init_from=str(tiny_run)))
    assert isinstance(start, Start)
    assert [(h.name, h.first) for h in start.held_out] == [("v0", 76)]
    assert "validation_loss" in steps[-1].values


def test_other_actions_are_new_and_all_else_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", [14, 14], ("steer", "gas"), continuous=True)
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=1", "predictor.learning_rate=1e-9"])
    with pytest.warns(FramepredWarning, match="does not know the actions steer, gas"):
        list(train(Job([str(videos)], tmp_path / "run", recipe, init_from=str(tiny_run))))
    run, before = load_run(tmp_path / "run"), load_run(tiny_run)
    assert run.layout.actions is not None
    assert run.layout.actions.names == ("steer", "gas")
    made, _ = make_model(before, run.layout, recipe, step_generator(0))
    ids = torch.randint(*before.layout.vocabulary.visual, (2, 30), generator=step_generator(1))
    codes = slice(*before.layout.vocabulary.visual)
    with torch.inference_mode():
        torch.testing.assert_close(made(ids)[..., codes], before.predictor(ids)[..., codes])


def test_a_shape_that_is_not_used_is_said(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    with pytest.warns(FramepredWarning, match=r"predictor.layers = 5 is not used: tiny, which .* has 2"):
        made = shaped_like(apply_settings(tiny_recipe(), ["predictor.layers=5"]), run)
    assert (made.predictor.layers, made.predictor.width) == (2, 32)


def test_stopped_after_a_few_steps_it_keeps_what_it_was_begun_with(clips_dir: Path, tmp_path: Path) -> None:
    job = Job([str(clips_dir)], tmp_path / "run", tiny_recipe(), only="tokenizer")
    progress = train(job)
    for item in progress:
        if getattr(item, "step", 0) == 2:
            progress.close()
            break
    assert (job.out / "recipe.toml").is_file() and list(job.out.glob("resume-*.safetensors"))


def test_what_cannot_be_used_is_said_before_and_is_in_no_line_of_the_start(tmp_path: Path) -> None:
    videos = folder_of(tmp_path / "videos", [14, 14, 14, 14], ("action",))
    # The first would be held out; its rows do not fit, those of the second are no actions, the third is no video.
    (held,) = held_out_of(look_at_videos(find_videos([videos]))[1], 0.1)
    first, second, third = sorted({f"v{i}" for i in range(4)}, key=lambda name: (name != held.name, name))[:3]
    write_actions(videos / f"{first}.actions.csv", torch.zeros(9, dtype=torch.int64), ["steer"])
    (videos / f"{second}.actions.csv").write_text("steer\n1\nx\n")
    (videos / f"{third}.mp4").write_text("no video")
    other = folder_of(tmp_path / "more", [13]) / "v0.mp4"
    words, start = said(videos, other.rename(other.with_name("other.mp4")), "-o", tmp_path / "run", *SMALL)
    lines = words.splitlines()
    assert [line.startswith("warning: skipped: ") for line in lines[:4]] == [True, True, True, False]
    assert words.count("skipped:") == 3
    assert all(any(name in line for line in lines[:3]) for name in (first, second, third))
    assert (start["videos"], start["frames"], start["actions"]) == (2, 27, ["action"])
    assert start["held_out"][0]["name"] not in (first, second, third)


def test_another_part_is_not_held_out_without_a_word(tiny_run: Path) -> None:
    episodes = [(episode, "clips") for episode in read_store(tiny_run / "tokens")]
    with pytest.warns(FramepredWarning, match="gone, which was to be held out, is not among what could be read"):
        _, apart = divided(episodes, [HeldOut("gone", "nowhere.mp4")], 0.2)
    assert len(apart) == 1
