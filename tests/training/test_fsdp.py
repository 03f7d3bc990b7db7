"""FSDP: weights that two processes share out learn what one process learns, and are saved whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe

from framepred.config.recipe import apply_settings, to_toml
from framepred.training.pipeline import Job, train
from framepred.world.run import load_run

SETTINGS = ("training.predictor_steps=4", "training.validate_every=4", "training.save_minutes=0")


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if row["stage"] == "predictor"]


@pytest.mark.slow
def test_two_processes_with_fsdp_give_the_losses_of_one(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), SETTINGS)
    (tmp_path / "recipe.toml").write_text(to_toml(recipe))
    launch = [
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
        str(Path(__file__).with_name("fsdp_on_cpus.py")), "train", str(clips_dir), "-o", str(tmp_path / "two"),
        "--recipe", str(tmp_path / "recipe.toml"), "--tokenizer", str(tiny_run), "--init-from", "none",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(Path.cwd())}
    made = subprocess.run([sys.executable, *launch], env=environment, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr[-3000:]
    for _ in train(Job([str(clips_dir)], tmp_path / "one", recipe, tokenizer=str(tiny_run))):
        pass
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-4)
    one, two = (load_run(tmp_path / name).predictor.state_dict() for name in ("one", "two"))
    assert all(torch.allclose(two[name], weight, atol=1e-4) for name, weight in one.items())
