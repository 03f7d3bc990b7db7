"""`scripts/train_world`: from recorded frames to a finished run that goes on where it was stopped."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import moving_square

from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video
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
    """Episodes as `record` leaves them: npz files to train on, videos held out."""
    (tmp_path / "train").mkdir()
    made = [episode(seed, 30) for seed in range(4)]
    frames, actions = (torch.cat(parts).numpy() for parts in zip(*made, strict=True))
    np.savez(tmp_path / "train" / "a.npz", frames=frames, actions=actions, lengths=np.array([30] * 4))
    for seed in (8, 9):
        pictures, taken = episode(seed, 24)
        write_video(tmp_path / "held-out" / f"{seed}.mp4", pictures, 8.75, lossless=True)
        write_actions(tmp_path / "held-out" / f"{seed}.actions.csv", taken, ["action"])
    return tmp_path


def call(folder: Path, *phases: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / "train_world"), str(folder), *phases, "--minutes", "0"]
    command += ["--predictor-minutes", "0", "--out", str(folder / "out")]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_frames_become_a_run_phase_by_phase(folder: Path) -> None:
    said = [json.loads(line) for line in call(folder, "tokenizer", "encode", "predictor").splitlines()]
    assert [line["segments"] for line in said if line.get("phase") == "encode"] == [4]
    assert (said[-1]["stage"], said[-1]["step"], said[-1]["done"]) == ("predictor", 3, 1.0)
    run = load_run(folder / "out" / "run")
    assert run.layout.cells and run.layout.actions is not None
    assert "copy" in call(folder, "score")
    assert {"config.json", "framepred.json", "model.safetensors", "recipe.toml", "tokenizer", "scores.txt"} <= {
        path.name for path in (folder / "out" / "run").iterdir()
    }
