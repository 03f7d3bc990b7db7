"""From videos to a rollout with a temporal tokenizer, by the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from framepred.cli import cli

pytestmark = pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning")
SETTINGS = (
    "tokenizer.width=16", "tokenizer.levels=[5, 3]", "tokenizer.context_levels=[4, 4]", "tokenizer.batch_size=4",
    "predictor.width=32", "predictor.layers=1", "predictor.heads=2", "predictor.kv_heads=2", "predictor.mlp_width=64",
    "predictor.window=6", "predictor.batch_size=4", "training.validation_batches=1", "training.precision=fp32",
)  # fmt: skip


def call(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], prog_name="framepred")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def test_videos_become_a_run_that_rolls_out(clips_dir: Path, tmp_path: Path) -> None:
    given = [word for setting in SETTINGS for word in ("--set", setting)]
    made = call("train", clips_dir, "-o", tmp_path / "run", "--recipe", "temporal", "--steps", 4, *given)
    assert {"step", "loss", "bits", "validation_psnr", "validation_bits"} <= made["stages"]["tokenizer"].keys()
    assert made["stages"]["predictor"]["step"] == 4
    assert all((tmp_path / "run" / name).is_file() for name in ("preview.png", "curves.svg"))
    about = call("info", tmp_path / "run")
    assert (about["tokens_per_frame"], about["context_grid"]) == (16, [4, 4])
    rolled = call(
        "rollout", clips_dir / "clip0.mp4", "--model", tmp_path / "run", "-o", tmp_path / "a.npz", "--horizon", 3
    )
    assert len(rolled["psnr"]["model"]) == 3
    assert np.load(tmp_path / "a.npz")["frames"].shape == (1, 3, 3, 64, 64)
