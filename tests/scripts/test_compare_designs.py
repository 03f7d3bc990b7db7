"""`scripts/compare_designs`: designs that are trained alike and scored on the same frames."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import FPS, moving_square

from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video

ROOT = Path(__file__).parents[2]
SETTINGS = (
    "tokenizer.width=16", "tokenizer.batch_size=2", "predictor.width=32", "predictor.layers=1", "predictor.heads=2",
    "predictor.kv_heads=2", "predictor.mlp_width=64", "predictor.batch_size=2", "training.validation_batches=1",
    "training.precision=fp32", "training.tokenizer_steps=2", "training.predictor_steps=2",
)  # fmt: skip


def folder_of(folder: Path, seeds: range) -> Path:
    for seed in seeds:
        frames, actions = moving_square(seed, 24)
        write_video(folder / f"v{seed}.mp4", frames, FPS, lossless=True)
        write_actions(folder / f"v{seed}.actions.csv", actions, ["move"])
    return folder


def call(tmp_path: Path, *designs: str) -> dict[str, dict[str, object]]:
    command = [sys.executable, str(ROOT / "scripts" / "compare_designs"), str(tmp_path / "train"),
               str(tmp_path / "held-out"), "-o", str(tmp_path / "out"), "--minutes", "0", "--clips", "2"]  # fmt: skip
    command += [word for design in designs for word in ("--design", design)]
    command += [word for setting in SETTINGS for word in ("--set", setting)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts")])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results: dict[str, dict[str, object]] = json.loads(done.stdout.splitlines()[-1])["results"]
    return results


@pytest.mark.slow
def test_designs_are_trained_and_scored(tmp_path: Path) -> None:
    folder_of(tmp_path / "train", range(4))
    folder_of(tmp_path / "held-out", range(8, 10))
    results = call(tmp_path, "image-16", "temporal-no-actions")
    image, alone = results["image-16"], results["temporal-no-actions"]
    assert image["clips"] == alone["clips"] == 2
    assert set(image["rows"]) == {  # type: ignore[call-overload]
        "model", "model_no_actions", "model_shuffled_actions", "copy_last", "ceiling"
    }  # fmt: skip
    assert set(alone["rows"]) == {"model", "model_no_actions", "decoder_alone", "copy_last", "ceiling"}  # type: ignore[call-overload]
    # Both are scored on the same frames.
    assert image["rows"]["copy_last"] == alone["rows"]["copy_last"]  # type: ignore[index]
    assert image["rows"]["copy_last"]["1-8"]["motion_ratio"] == 0  # type: ignore[index]
    assert image["tokens"] == 16
