"""What a video gives to a run: its actions, and the rate at which it is read."""

import warnings
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredWarning
from framepred.sources.contract import StoredEpisode
from framepred.world.run import Run


def given_actions(file: StoredEpisode, actions: str | None, run: Run) -> tuple[Tensor, str] | None:
    """Return (actions, their file) or None for a prediction without."""
    if actions == "none":
        return None
    path = actions if actions is not None else file.actions_from
    if path is None:
        return None
    if run.layout.actions is None and actions is None:
        warnings.warn(FramepredWarning(f"{path} is not used: the model was trained without actions"), stacklevel=2)
        return None
    space = run.layout.actions
    loaded = file.ordered(space.names if space else None).actions(Path(actions) if actions is not None else None)
    return (loaded[0], path) if loaded else None


def rate_of_run(file: StoredEpisode, run: Run) -> float | None:
    """Return the rate to resample a video to, with a warning; None where it keeps its own frames."""
    rate = file.resampled_to(run.fps)
    if rate is not None:
        own = file.info().fps
        message = f"{file.name} has {own:g} frames a second, the model {rate:g}: resampled"
        warnings.warn(FramepredWarning(message), stacklevel=2)
    return rate
