"""How far a picture is from a goal: in pixels, or in what the tokenizer's codes show."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.world.run import Run

Distance = Callable[[Tensor], Tensor]
"""Frames uint8 (S, 3, H, W) → how far each is from the goal, float32 (S,), 0 where it is reached."""


def goal_picture(goal: "Tensor | np.ndarray | str | os.PathLike[str]", size: tuple[int, int]) -> Tensor:
    """Return a goal as uint8 (3, H, W): a tensor of that shape, an array (H, W, 3), or a picture's file.

    Raises FramepredError for one that is not a picture of this `size`.
    """
    if isinstance(goal, Tensor):
        picture, name = goal, "the goal"
    elif isinstance(goal, np.ndarray):
        picture, name = torch.from_numpy(goal.copy()).movedim(-1, 0), "the goal"
    else:
        picture, name = _read_picture(Path(goal)), f"goal {goal}"
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.dtype != torch.uint8:
        raise FramepredError(f"{name} has shape {tuple(picture.shape)} and {picture.dtype}: give an RGB picture, uint8")
    if tuple(picture.shape[1:]) != size:
        have, want = ("x".join(map(str, pair)) for pair in (picture.shape[1:], size))
        raise FramepredError(f"{name} is {have} pixels, the world shows {want}: give a picture of that size")
    return picture


def _read_picture(path: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        raise FramepredError(f"goal {path} does not exist: give a picture")
    try:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0)
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise FramepredError(f"goal {path} cannot be read as a picture: give a PNG, JPEG or WebP file") from error


def pixel_distance(goal: Tensor) -> Distance:
    """Root of the mean squared difference of pixels, 0 to 1."""

    def distance(frames: Tensor) -> Tensor:
        return (frames.float() - goal.to(frames.device).float()).square().mean((1, 2, 3)).sqrt() / 255

    return distance


def feature_distance(run: Run, goal: Tensor) -> Distance:
    """Root of the mean squared difference of what the run's tokenizer sees; FramepredError where it does not say."""
    features = getattr(run.tokenizer, "features", None)
    if features is None:
        raise FramepredError(f"{type(run.tokenizer).__name__} gives no features: measure the distance in pixels")
    wanted = features(goal[None])

    def distance(frames: Tensor) -> Tensor:
        return (features(frames) - wanted).square().flatten(1).mean(1).sqrt().cpu()

    return distance
