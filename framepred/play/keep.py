"""Keeping what was played: NAME.mp4 and NAME.actions.csv, which training, rollouts and evaluation take."""

import re
from pathlib import Path

from framepred.errors import FramepredError
from framepred.play.controls import Controls
from framepred.play.game import Played
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.video.write import write_video


def keep(played: Played, controls: Controls, columns: tuple[str, ...], folder: Path, name: str) -> Path:
    """Write what was played into a folder, lossless, and its actions under the names of their `columns`.

    Returns the video's path. FramepredError for a name that is not one or is taken, and for a game that is too short.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,80}", name):
        raise FramepredError(f"name {name!r:.40} is not allowed: give letters, digits, - and _")
    if len(played.frames) < 2:
        raise FramepredError("nothing was played yet: play at least one step")
    video = folder / f"{name}.mp4"
    actions, file = controls.tensor(played.actions), actions_path(video)
    for path in (video, file):
        if path.exists():
            raise FramepredError(f"{path.name} exists already: give another name")
    # The actions first: a video without them would say that none were taken.
    if actions is not None:
        write_actions(file, actions, columns)
    try:
        write_video(video, played.frames, played.fps, lossless=True)
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return video


def free_name(folder: Path) -> str:
    """Return the first of play-1, play-2, ... that is not taken."""
    number = 1
    while any(folder.glob(f"play-{number}.*")):
        number += 1
    return f"play-{number}"
