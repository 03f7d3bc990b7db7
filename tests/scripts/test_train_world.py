"""`scripts/train_world`: from recorded frames to a finished run that goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import world_data
from conftest import moving_square

from framepred.sources.actions_csv import actions_path, read_actions
from framepred.video.read import read_video
from framepred.world.run import load_run

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "data.size=[32, 32]", "tokenizer.width=16", "tokenizer.levels=[5, 3]", "tokenizer.context_levels=[4, 4]",
    "tokenizer.batch_size=4", "predictor.width=32", "predictor.layers=1", "predictor.heads=2", "predictor.kv_heads=2",
    "predictor.mlp_width=64", "predictor.window=6", "predictor.batch_size=4", "training.validation_batches=1",
    "training.precision=fp32", "training.tokenizer_steps=3", "training.predictor_steps=3",
)  # fmt: skip


def episode(seed: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    pictures, actions = moving_square(seed, frames)
    return pictures[:, :, ::2, ::2].contiguous(), actions


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Episodes as `record` leaves them."""
    for name, seeds, length in (("train", range(4), 30), ("held-out", (8, 9), 24)):
        made = [episode(seed, length) for seed in seeds]
        frames, actions = (torch.cat(parts).numpy() for parts in zip(*made, strict=True))
        (tmp_path / name).mkdir()
        np.savez(tmp_path / name / "a.npz", frames=frames, actions=actions, lengths=np.array([length] * len(made)))
    return tmp_path


def call(world: str, folder: Path, *words: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "train_world"), world, str(folder), *words]
    command += ["--minutes", "0", "--predictor-minutes", "0", "--out", str(folder / "out")]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_frames_become_a_run_phase_by_phase(folder: Path) -> None:
    lines = call("doom-64", folder, "tokenizer", "encode", "predictor").splitlines()
    said = [json.loads(line) for line in lines if line.startswith("{")]
    shown = [line.split(" | ")[0] for line in lines if line.startswith("| ")]
    assert shown[1:] == ["| copy last frame", "| decoder alone", "| tokenizer ceiling"]
    assert [line["segments"] for line in said if line.get("phase") == "encode"] == [4]
    assert (said[-1]["stage"], said[-1]["step"], said[-1]["done"]) == ("predictor", 3, 1.0)
    run = load_run(folder / "out" / "run")
    assert run.layout.cells and run.layout.actions is not None
    first = call("doom-64", folder, "score").splitlines()[0]
    rows = json.loads(json.loads(first)["rows"])
    assert {"copy last frame", "decoder alone", "tokenizer ceiling", "one future, T=1"} <= set(rows)
    assert rows["copy last frame"]["1-8"]["motion"] == 0
    assert rows["decoder alone"]["+1"]["psnr"] > 0
    written = {path.name for path in (folder / "out" / "run").iterdir()}
    assert {"config.json", "framepred.json", "model.safetensors", "recipe.toml", "tokenizer", "scores.md"} <= written
    assert "contact-sheet.png" in written
    start = folder / "out" / "run" / "start.mp4"
    assert torch.equal(read_video(start).frames, world_data.load(folder / "held-out").episodes()[0][0])
    assert len(read_actions(actions_path(start))[0]) == 23


@pytest.mark.slow
def test_the_same_seed_plays_the_same_episode(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    call("doom-64", tmp_path, "record", "--episodes", "2", "--steps", "5", "--processes", "1")
    both = world_data.load(tmp_path / "train")
    assert both.lengths == (6, 6)
    world_data.record("doom-64", tmp_path / "again", (32, 32), 1_000_001, 1, 5, 0.75, 1)
    again = world_data.load(tmp_path / "again")
    assert torch.equal(both.episodes()[1][0], again.episodes()[0][0])
    assert torch.equal(both.episodes()[1][1], again.episodes()[0][1])
    assert not torch.equal(both.episodes()[0][0], both.episodes()[1][0])
