"""What a video gives to a run: its actions, and the rate at which it is read."""

import warnings
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredWarning
from framepred.sources.actions_csv import read_actions
from framepred.sources.folder import VideoFile
from framepred.video.read import probe_video
from framepred.world.run import Run


def given_actions(file: VideoFile, actions: str | None, run: Run) -> tuple[Tensor, str] | None:
    """Return (actions, their file) or None for a prediction without."""
    if actions == "none":
        return None
    path = Path(actions) if actions is not None else file.actions_file
    if path is None:
        return None
    if run.layout.actions is None and actions is None:
        warnings.warn(FramepredWarning(f"{path} is not used: the model was trained without actions"), stacklevel=2)
        return None
    return read_actions(path)[0], str(path)


def rate_of_run(file: VideoFile, run: Run, actions: str | None) -> float | None:
    """Return the rate to resample to; None where the video has the run's rate already."""
    own = probe_video(file.path).fps
    if abs(own - run.fps) <= 0.02 * run.fps:
        return None
    if file.actions_file is not None and actions == "none":
        return None
    warnings.warn(
        FramepredWarning(f"{file.path.name} has {own:g} frames a second, the model {run.fps:g}: resampled"),
        stacklevel=2,
    )
    return run.fps
