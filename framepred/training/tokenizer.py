"""Training a tokenizer on the frames of videos."""

import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from framepred.config.recipe import Recipe, to_toml
from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.contract import StoredEpisode
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.training.frames import Actions, Episodes, known_actions, read_episodes, sample_frames
from framepred.training.held_out import HeldOut, divide_videos
from framepred.training.initialisation import tokenizer_to_train
from framepred.training.loop import Budget, Stage, TrainProgress, fit
from framepred.training.objectives import tokenizer_stage
from framepred.training.streams import Footage
from framepred.training.temporal import temporal_stage
from framepred.training.windows import group_weights

_HELD_OUT = 512
"""Frames that are read to validate on."""


def train_tokenizer(
    videos: Sequence[StoredEpisode], origin: str | None, recipe: Recipe, out: Path, accelerator: Accelerator,
    deadline: float | None, held: Sequence[HeldOut],
) -> Iterator[TrainProgress]:  # fmt: skip
    """Train a new tokenizer, or the one of `origin` further, and save it in OUT/tokenizer.

    It ends at `deadline` on the monotonic clock, the time for reading frames included, or after the recipe's steps.
    """
    temporal = recipe.tokenizer.kind == "temporal"
    actions = known_actions(videos) if temporal else Actions()
    model = tokenizer_to_train(recipe, origin, actions)
    videos = [video.ordered(getattr(model, "action_names", ()) or actions.names) for video in videos]
    train, held_out = divide_videos(videos, held)
    stage = (
        _temporal_stage(model, train, held_out, recipe, accelerator)
        if isinstance(model, TemporalAutoencoder)
        else _image_stage(model, train, held_out, recipe, accelerator)
    )
    warn_unvalidated(held_out)
    budget = Budget(recipe.training.tokenizer_steps, deadline and max(1.0, deadline - time.monotonic()))
    yield from fit(stage, accelerator, budget, recipe.training, out)
    if accelerator.is_main_process:
        save_tokenizer(out / "tokenizer", model, to_toml(recipe))


def _image_stage(
    model: Autoencoder, train: Sequence[StoredEpisode], held_out: Sequence[StoredEpisode], recipe: Recipe,
    accelerator: Accelerator,
) -> Stage:  # fmt: skip
    lenient, most = len(train) + len(held_out) > 1, recipe.data.max_tokenizer_frames
    frames = sample_frames(train, recipe.data.frame_size, most, lenient)
    if not len(frames.frames):
        raise unreadable(len(train) + len(held_out))
    model.to(accelerator.device)
    return tokenizer_stage(
        model, frames, sample_frames(held_out, recipe.data.frame_size, _HELD_OUT, lenient), recipe, accelerator
    )


def _temporal_stage(
    model: TemporalAutoencoder, train: Sequence[StoredEpisode], held_out: Sequence[StoredEpisode], recipe: Recipe,
    accelerator: Accelerator,
) -> Stage:  # fmt: skip
    lenient, data = len(train) + len(held_out) > 1, recipe.data
    read, held = (
        read_episodes(part, data.frame_size, data.fps or None, most, lenient)
        for part, most in ((train, data.max_tokenizer_frames), (held_out, _HELD_OUT))
    )
    if not read.lengths:
        raise unreadable(len(train) + len(held_out))
    if max(read.lengths) < 2:
        raise FramepredError("no training video has two frames: give longer videos")
    model.to(accelerator.device)
    footage, unseen = (footage_of(model, part, data.source_power) for part in (read, held))
    return temporal_stage(model, footage, unseen, recipe, accelerator)


def footage_of(tokenizer: TemporalAutoencoder, episodes: Episodes, source_power: float) -> Footage:
    """Lay out episodes on the tokenizer's device, with the features of their actions."""
    device, count = tokenizer.device, len(episodes.frames)
    given = None if episodes.actions is None or not count else episodes.actions[:, None]
    features = tokenizer.action_features(given, count)[:, -1]
    weights = group_weights(episodes.groups, [max(0, n - 1) for n in episodes.lengths], source_power)
    # Of no episodes too, where none is held out.
    lengths = torch.tensor(episodes.lengths, dtype=torch.int64, device=device)
    return Footage.build(episodes.frames.to(device), features, lengths, weights)


def unreadable(count: int) -> FramepredError:
    """Return the error that none of so many videos could be read."""
    return FramepredError(f"no training video of {count} videos could be read: give videos that FFmpeg can read")


def warn_unvalidated(held_out: Sequence[object]) -> None:
    """Warn where no episode is held out to validate on."""
    if not held_out:
        warnings.warn(
            FramepredWarning(
                "no validation: whole episodes are held out, and there is only one; give two videos or more"
            ),
            stacklevel=2,
        )
