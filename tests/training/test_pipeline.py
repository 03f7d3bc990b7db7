"""Whole runs: what they see, what they leave, killed and resumed, on one process or two."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import tiny_recipe
from training_runs import do, equal_weights, losses, rows

from framepred.config.recipe import apply_settings, to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.sequence.actions import ActionSpace
from framepred.sources.actions_csv import read_actions, write_actions
from framepred.sources.folder import find_videos
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokens.tokenize import tokenize
from framepred.training.windows import split_episodes
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.run import load_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def test_held_out_episodes_never_touch_the_training(clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply_settings(
        tiny_recipe(), ["training.tokenizer_steps=4", "training.predictor_steps=4", "training.validate_every=4"]
    )
    names = [f"clip{i}" for i in range(5)]
    (held,) = split_episodes(names, recipe.data.validation_fraction)[1]
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(names):
            frames = read_video(clips_dir / f"{name}.mp4").frames
            if folder == "other" and i == held:
                frames = 255 - frames
            write_video(tmp_path / folder / f"{name}.mp4", frames, 10.0, lossless=True)
            write_actions(tmp_path / folder / f"{name}.actions.csv", *read_actions(clips_dir / f"{name}.actions.csv"))
        do(tmp_path / folder, out=tmp_path / f"run-{folder}", recipe=recipe)
    runs = tmp_path / "run-one", tmp_path / "run-other"
    for stage, value in (("tokenizer", "validation_psnr"), ("predictor", "validation_loss")):
        assert losses(runs[0], stage) == losses(runs[1], stage)
        assert rows(runs[0], stage)[-1][value] != rows(runs[1], stage)[-1][value]
    assert equal_weights(*runs)
    assert equal_weights(runs[0] / "tokenizer", runs[1] / "tokenizer")


def test_one_video_is_trained_on_with_a_warning(clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), ["training.tokenizer_steps=1", "training.predictor_steps=1"])
    with pytest.warns(FramepredWarning, match="no validation: whole episodes are held out, and there is only one"):
        do(clips_dir / "clip0.mp4", out=tmp_path / "run", recipe=recipe)
    assert not any(key.startswith("validation") for row in rows(tmp_path / "run", "predictor") for key in row)


def test_a_token_store_trains_as_its_videos_do(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=4", "training.validate_every=4"])
    folder = tiny_run / "tokenizer"
    for _ in tokenize(
        find_videos([clips_dir]), tmp_path / "store", load_tokenizer(folder), "t", tokenizer_sha256(folder), str(folder)
    ):
        pass
    do(tmp_path / "store", out=tmp_path / "a", recipe=recipe)
    do(clips_dir, out=tmp_path / "b", recipe=recipe, tokenizer=str(folder))
    assert losses(tmp_path / "a", "predictor") == losses(tmp_path / "b", "predictor")
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    run = load_run(tmp_path / "a")
    assert run.tokenizer_sha256 == tokenizer_sha256(folder)
    assert run.layout.actions == ActionSpace("discrete", ("action",), count=4)


def test_the_seed_decides_the_weights(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    short = ["training.predictor_steps=3"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = apply_settings(tiny_recipe(), [*short, f"training.seed={seed}"])
        do(clips_dir, out=tmp_path / name, recipe=recipe, tokenizer=str(tiny_run))
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    assert not equal_weights(tmp_path / "a", tmp_path / "c")


def test_a_run_that_is_there_is_not_overwritten(clips_dir: Path, tiny_run: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()}
    with pytest.raises(FramepredError, match="exists and is not empty: give --resume to go on, --overwrite"):
        do(clips_dir, out=tiny_run, recipe=tiny_recipe())
    assert {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()} == before


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(clips: Path, out: Path, recipe: Path, *more: str) -> list[str]:
    return ["-m", "framepred", "train", str(clips), "-o", str(out), "--recipe", str(recipe), *more]


def kill_midway(arguments: list[str], run: Path, stage: str, step: int) -> int:
    """Start a training, SIGKILL it when `stage` has done `step` steps and saved; return its last logged step."""
    log = run / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if process.poll() is not None:
                assert process.stderr is not None
                raise AssertionError(process.stderr.read().decode())
            lines = log.read_text().splitlines()[:-1] if log.exists() else []
            done = sum(json.loads(line)["stage"] == stage for line in lines if line.endswith("}"))
            if done >= step and (run / f"resume-{stage}.safetensors").exists():
                break
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert not (run / "model.safetensors").exists()
    return len(rows(run, stage)) if (run / "metrics.jsonl").read_text().endswith("\n") else step


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_very_same_weights(clips_dir: Path, tmp_path: Path) -> None:
    settings = ["training.tokenizer_steps=60", "training.predictor_steps=80", "training.validate_every=25"]
    expected = tmp_path / "whole"
    do(clips_dir, out=expected, recipe=apply_settings(tiny_recipe(), settings))

    # Saved every tenth of a second: some steps are lost with each kill and must be done again alike.
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(apply_settings(tiny_recipe(), [*settings, "training.save_minutes=0.002"])))
    run = tmp_path / "killed"
    assert kill_midway(command(clips_dir, run, recipe), run, "tokenizer", 15) < 60
    assert kill_midway(command(clips_dir, run, recipe, "--resume"), run, "predictor", 20) < 80
    finished = subprocess.run(
        [sys.executable, *command(clips_dir, run, recipe, "--resume")],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()

    assert equal_weights(run / "tokenizer", expected / "tokenizer")
    assert equal_weights(run, expected)
    for stage, steps in (("tokenizer", 60), ("predictor", 80)):
        assert [row["step"] for row in rows(run, stage)] == list(range(1, steps + 1))
        assert losses(run, stage) == losses(expected, stage)
    assert not list(run.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_two_processes_give_the_losses_of_one(quantizer: str, clips_dir: Path, tmp_path: Path) -> None:
    settings = ["training.tokenizer_steps=6", "training.predictor_steps=6", "training.validate_every=3",
                f"tokenizer.quantizer={quantizer}", "tokenizer.codebook_size=16", "tokenizer.code_dim=4"]  # fmt: skip
    recipe = apply_settings(tiny_recipe(), settings)
    file = tmp_path / "recipe.toml"
    # Saving at every step, so that what is saved has been gathered from both.
    recipe = apply_settings(recipe, ["training.save_minutes=0"])
    file.write_text(to_toml(recipe))
    # With --cpu, accelerate would start one process; without, framepred finds the processes and no GPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
              *command(clips_dir, tmp_path / "two", file)]  # fmt: skip
    made = subprocess.run([sys.executable, *launch], env=ENVIRONMENT, capture_output=True, timeout=180, check=False)
    assert made.returncode == 0, made.stderr.decode()[-3000:]
    assert made.stdout.decode().count(": done") == 1
    do(clips_dir, out=tmp_path / "one", recipe=recipe)
    for stage in ("tokenizer", "predictor"):
        assert [r["step"] for r in rows(tmp_path / "two", stage)] == [r["step"] for r in rows(tmp_path / "one", stage)]
        assert losses(tmp_path / "two", stage) == pytest.approx(losses(tmp_path / "one", stage), abs=1e-4)
    two, one = (rows(tmp_path / name, "predictor")[-1]["validation_loss"] for name in ("two", "one"))
    assert two == pytest.approx(one, abs=1e-3)
    assert load_run(tmp_path / "two").window == recipe.predictor.window
    if quantizer == "fsq":
        # What both saved, both load: embedding and head share weights, which have one name in the file.
        weights = (tmp_path / "two" / "model.safetensors").read_bytes()
        again = subprocess.run(
            [sys.executable, *launch, "--resume"], env=ENVIRONMENT, capture_output=True, timeout=180, check=False
        )
        assert again.returncode == 0, again.stderr.decode()[-3000:]
        assert (tmp_path / "two" / "model.safetensors").read_bytes() == weights
