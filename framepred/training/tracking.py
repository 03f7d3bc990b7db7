"""Experiment trackers, which are shown the numbers of metrics.jsonl: those that accelerate knows."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

from accelerate import Accelerator

from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.training.loop import TrainProgress, make_accelerator
from framepred.training.unfinished import saved_steps

TRACKERS = ("tensorboard", "trackio", "wandb")
_PROJECT = "framepred"
T = TypeVar("T")


def check_tracker(name: str) -> None:
    """Raise FramepredError for a tracker that is not known or not installed."""
    if name not in TRACKERS:
        raise FramepredError(f"tracker {name!r} is not known; give one of {', '.join(TRACKERS)}")
    if find_spec(name) is None:
        raise FramepredError(f"tracker {name} is not installed: pip install 'framepred[{name}]'")


def tracked(progress: Generator[T, None, None], tracker: str, run: Path, recipe: Recipe) -> Generator[T, None, None]:
    """Pass progress on, and show each step to a tracker: tensorboard's files are in RUN/tensorboard.

    Values are named STAGE/VALUE. The predictor's steps are counted on from the tokenizer's last.
    """
    accelerator: Accelerator | None = None
    stage, before = "", 0
    try:
        with closing(progress):
            for item in progress:
                if isinstance(item, TrainProgress):
                    accelerator = accelerator or _begun(tracker, run, recipe)
                    if item.stage != stage:
                        stage = item.stage
                        before = sum(steps for name, steps in saved_steps(run).items() if name != stage)
                    row = item.to_row()
                    shown = {f"{stage}/{name}": value for name, value in row.items() if name not in ("stage", "step")}
                    accelerator.log(shown, step=before + item.step)
                yield item
    finally:
        if accelerator is not None:
            accelerator.end_training()


def _begun(tracker: str, run: Path, recipe: Recipe) -> Accelerator:
    accelerator = make_accelerator(tracker, run / tracker)
    settings = {f"{part}.{name}": value for part, values in asdict(recipe).items() for name, value in values.items()}
    plain = {name: value if isinstance(value, bool | int | float) else str(value) for name, value in settings.items()}
    accelerator.init_trackers(_PROJECT, plain)
    return accelerator
