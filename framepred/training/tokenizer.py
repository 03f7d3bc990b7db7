"""Training a tokenizer on the frames of videos."""

import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from accelerate import Accelerator

from framepred.config.recipe import Recipe, to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.folder import VideoFile
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.training.frames import sample_frames
from framepred.training.initialisation import tokenizer_to_train
from framepred.training.loop import Budget, TrainProgress, fit
from framepred.training.objectives import tokenizer_stage
from framepred.training.windows import split_episodes


def train_tokenizer(
    videos: Sequence[VideoFile], origin: str | None, recipe: Recipe, out: Path, accelerator: Accelerator,
    deadline: float | None,
) -> Iterator[TrainProgress]:  # fmt: skip
    """Train a new tokenizer, or the one of `origin` further, and save it in OUT/tokenizer.

    It ends at `deadline` on the monotonic clock, the time for reading frames included, or after the recipe's steps.
    """
    train_index, held_index = split_episodes([v.name for v in videos], recipe.data.validation_fraction)
    model = tokenizer_to_train(recipe, origin)
    frames = (
        sample_frames([videos[i] for i in index], recipe.data.size, most, len(videos) > 1)
        for index, most in ((train_index, recipe.data.max_tokenizer_frames), (held_index, 512))
    )
    train, held_out = frames
    if not len(train.frames):
        raise FramepredError(
            f"no training video of {len(videos)} videos could be read: give videos that FFmpeg can read"
        )
    warn_unvalidated(held_index)
    model.to(accelerator.device)
    budget = Budget(recipe.training.tokenizer_steps, deadline and max(1.0, deadline - time.monotonic()))
    stage = tokenizer_stage(model, train, held_out, recipe, accelerator)
    yield from fit(stage, accelerator, budget, recipe.training, out)
    if accelerator.is_main_process:
        save_tokenizer(out / "tokenizer", model, to_toml(recipe))


def warn_unvalidated(held_index: Sequence[int]) -> None:
    """Warn where no episode is held out to validate on."""
    if not held_index:
        warnings.warn(
            FramepredWarning(
                "no validation: whole episodes are held out, and there is only one; give two videos or more"
            ),
            stacklevel=2,
        )
