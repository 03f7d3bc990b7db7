"""Where episodes in a world begin: moments of given clips."""

import os
import warnings
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.sequence.actions import ActionSpace
from framepred.sources.actions import order_actions
from framepred.sources.contract import StoredEpisode
from framepred.sources.episode import Episode
from framepred.sources.find import find_episodes
from framepred.video.clock import same_rate, say_rate
from framepred.video.read import Clip
from framepred.video.resize import fit_frames
from framepred.world.footage import rate_of_run
from framepred.world.run import Run

Given = str | os.PathLike[str] | Clip | Episode
_KEPT_VIDEOS = 32


class Starts:
    """Clips whose moments episodes begin from: videos, folders of videos, `Clip` or `Episode`.

    Videos are read when they are needed; the last 32 stay in memory. FramepredError where there is none.
    """

    def __init__(self, run: Run, given: Given | Sequence[Given]) -> None:
        members = [given] if isinstance(given, str | os.PathLike | Clip | Episode) else list(given)
        self._run, self._clips = run, list[Clip | Episode | StoredEpisode]()
        for member in members:
            self._clips += [member] if isinstance(member, Clip | Episode) else find_episodes([member])
        if not self._clips:
            raise FramepredError("no clip to start from: give a video, a folder of videos, a Clip or an Episode")
        self._read = lru_cache(_KEPT_VIDEOS)(self._read_clip)

    def draw(self, generator: np.random.Generator, length: int) -> tuple[Tensor, Tensor | None]:
        """Return `length` successive frames uint8 (T, 3, H, W) of any clip, and the T - 1 actions between them.

        A shorter clip stands still before it begins: its first frame is repeated, and no actions are told.
        """
        frames, actions = self._read(int(generator.integers(len(self._clips))))
        # Whatever the length, the same draw ends at the same frame where the clip is long enough.
        last = int(generator.integers(min(self._run.window, len(frames)) - 1, len(frames)))
        first = last + 1 - length
        if first < 0:
            return torch.cat([frames[:1].expand(-first, -1, -1, -1), frames[: last + 1]]), None
        return frames[first : last + 1], None if actions is None else actions[first:last]

    def _read_clip(self, index: int) -> tuple[Tensor, Tensor | None]:
        clip, run = self._clips[index], self._run
        size, space = run.tokenizer.frame_size, run.layout.actions
        if isinstance(clip, StoredEpisode):
            rate = rate_of_run(clip, run)
            clip = clip.ordered(space.names if space else None).read(size, rate, with_actions=space is not None)
        elif not same_rate(clip.fps, run.fps):
            message = f"{_name(clip)} has {say_rate(clip.fps)}, the run {say_rate(run.fps)}: its own frames are read"
            warnings.warn(FramepredWarning(message), stacklevel=2)
        frames, actions = fit_frames(clip.frames, size), _actions(clip, space) if space else None
        if len(frames) < run.window:
            message = (
                f"{_name(clip)} has {len(frames)} frames, the model sees {run.window}: begins with its first repeated"
            )
            warnings.warn(FramepredWarning(message), stacklevel=2)
        return frames, actions


def _name(clip: Clip | Episode) -> str:
    return clip.name if isinstance(clip, Episode) else "a clip"


def _actions(clip: Clip | Episode, space: ActionSpace) -> Tensor | None:
    """Return a clip's actions as the run knows them, by name where they have names."""
    if not isinstance(clip, Episode) or clip.actions is None or not clip.action_names:
        return getattr(clip, "actions", None)
    return order_actions(clip.actions, clip.action_names, space.names, clip.name)
