"""Whole trainings of tests: run one, and read what it logged and left."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from framepred.config.recipe import Recipe
from framepred.training.loop import TrainProgress
from framepred.training.pipeline import Job, train


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def losses(run: Path, stage: str) -> list[float]:
    return [row["loss"] for row in rows(run, stage)]


def do(*sources: Path, out: Path, recipe: Recipe, **more: Any) -> list[TrainProgress]:
    """Train to the end; return the progress of the stages."""
    return [p for p in train(Job([str(s) for s in sources], out, recipe, **more)) if isinstance(p, TrainProgress)]


def equal_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
