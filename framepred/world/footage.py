"""What a video gives to a run: its actions, and the rate at which it is read."""

import warnings
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.contract import StoredEpisode
from framepred.video.clock import say_rate
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
    if loaded is None:
        return None
    if missing := file.info().missing:
        raise FramepredError(
            f"{file.where} lacks {missing} of the frames that its header counts, so {path} cannot be matched to them: "
            "give a video that is not damaged, or --actions none"
        )
    if file.actions_from is not None and (
        actions is None or Path(actions).resolve() == Path(file.actions_from).resolve()
    ):
        # Another file may tell what is to be predicted beyond the end of the video.
        file.check_rows(loaded[0], path)
    return loaded[0], path


def rate_of_run(file: StoredEpisode, run: Run, with_actions: bool = False) -> float | None:
    """Return the rate to resample a video to; None where it keeps its own frames, as it does `with_actions`.

    A rate that is not the model's is a warning.
    """
    rate = None if with_actions else file.resampled_to(run.fps)
    if message := other_rate(file, run.fps, rate):
        warnings.warn(FramepredWarning(message), stacklevel=2)
    return rate


def other_rate(file: StoredEpisode, wanted: float, rate: float | None) -> str | None:
    """Say that a video has not the rate that is wanted and is resampled to `rate`, or not; None where it has it."""
    info = file.info()
    if info.has_rate(wanted):
        return None
    done = "resampled" if rate else "its own frames are read"
    why = "" if rate else ", it is too slow to resample" if info.is_slow(wanted) else ", to which actions belong"
    uneven = "" if info.even else ", unevenly"
    return f"{Path(file.where).name} has {say_rate(info.fps)}{uneven}, not {say_rate(wanted)}: {done}{why}"
