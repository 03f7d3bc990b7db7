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
        raise FramepredError(
            f"goal {path} cannot be read as a picture: give a PNG, JPEG or WebP file, or a video and its frame"
        ) from error


def check_goal(run: Run, goal: Tensor, start: Tensor) -> None:
    """Raise FramepredError for a goal that the run cannot show: its tokenizer gives it back far worse than the start.

    Both are pictures uint8 (3, H, W). What a temporal tokenizer gives back depends on the past, so it is not asked.
    """
    if run.tokenizer.past:
        return
    pictures = torch.stack([goal, start])
    error = (run.tokenizer.decode(run.tokenizer.encode(pictures)).cpu().float() - pictures.float()).square()
    lost, usual = (10 * torch.log10(255**2 / error.mean((1, 2, 3)).clamp(min=1e-6))).tolist()
    if lost < usual - _FAR_WORSE:
        raise FramepredError(
            f"the goal is no picture of this world: the tokenizer gives it back at {lost:.1f} dB, the start at "
            f"{usual:.1f} dB; give a goal that the run can show"
        )


_FAR_WORSE = 8.0


def make_distance(run: Run, goal: Tensor, kind: str) -> Distance:
    """Return the distance to a goal in "pixels" or in the tokenizer's "features"."""
    return feature_distance(run, goal) if kind == "features" else pixel_distance(goal)


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
