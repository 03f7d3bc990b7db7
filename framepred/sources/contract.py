"""The contract of sources: where episodes are stored, and how one is read.

A source is a function from what follows its prefix (`lerobot:WHERE`) and the choices that were made
(`?camera=top` or --camera) to stored episodes in order. Built-in ones stand in `find.py`; a package adds one by an
entry point of the group `framepred.sources`, whose name is the prefix and whose value is such a function.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, TypeAlias

from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.actions import order_actions
from framepred.sources.actions_csv import read_actions
from framepred.sources.captions_csv import Caption
from framepred.sources.episode import Episode, check_action_count
from framepred.video.probe import VideoInfo
from framepred.video.read import gather

__all__ = ["Actions", "Choices", "Source", "StoredEpisode", "VideoInfo", "refuse_unknown"]

Actions: TypeAlias = tuple[Tensor, tuple[str, ...]]
"""Actions as in an Episode, and the names of their columns."""


class StoredEpisode(ABC):
    """An episode where it is stored: nothing is read before it is asked for, and frames come in chunks.

    A subclass is a frozen dataclass that can be pickled: worker processes read it. It has the fields `source`, the
    argument that named it or what holds it, and `action_names`: where given, the names that its actions must have, in
    the order in which they are wanted.
    """

    source: str
    action_names: tuple[str, ...] | None

    @property
    @abstractmethod
    def name(self) -> str:
        """Its short name."""

    @property
    @abstractmethod
    def where(self) -> str:
        """What messages call it."""

    @property
    @abstractmethod
    def key(self) -> str:
        """What a token store knows it by: the same from whichever folder the command is given."""

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """About how many bytes are read for it; 0 where that is not known."""

    @property
    @abstractmethod
    def state(self) -> str:
        """Something that changes when what is stored changes."""

    @property
    def content(self) -> str:
        """A hash of what its frames are made of: the same wherever it is stored, another once they change."""
        return hashlib.sha256(self.state.encode()).hexdigest()

    @property
    def said(self) -> str:
        """Something that changes when its captions change."""
        return ""

    @property
    @abstractmethod
    def actions_from(self) -> str | None:
        """What messages call the place of its actions; None where it has no actions."""

    @abstractmethod
    def info(self) -> VideoInfo:
        """Return what is known of its frames without decoding them all."""

    @abstractmethod
    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield frames uint8 (≤ chunk, 3, H, W) and their times float64 (≤ chunk,) in seconds from the first.

        `size` is (H, W); frames are `resampled_to` a rate.
        """

    @abstractmethod
    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        """Return the captions of frames at `times`, the last of which is shown for 1 / fps seconds."""

    @abstractmethod
    def own_actions(self) -> Actions | None:
        """Return its actions as they are stored; None where it has none."""

    def actions(self, file: Path | None = None) -> Actions | None:
        """Return the actions of an actions file, by default its own; None where there are none.

        Raises FramepredError where their names are not the `action_names`; another order is put right.
        """
        loaded = self.own_actions() if file is None else read_actions(file)
        if loaded is None or self.action_names is None:
            return loaded
        where = str(file or self.actions_from)
        return order_actions(*loaded, self.action_names, where), self.action_names

    def check_rows(self, actions: Tensor, where: str) -> None:
        """Raise FramepredError unless there is an action between every two frames of the whole episode.

        Where its header counts other frames, or none, all are decoded to be counted.
        """
        count = self.info().num_frames
        if count is None or len(actions) not in (count, count - 1):
            count = sum(len(times) for _, times in self.stream_timed((8, 8), None))
        check_action_count(actions, count, where)

    def ordered(self, action_names: tuple[str, ...] | None) -> Self:
        """Return the episode with its actions in the order of these names."""
        return replace(self, action_names=action_names)  # type: ignore[type-var]

    def resampled_to(self, fps: float | None) -> float | None:
        """Return `fps` where the frames are to be resampled to it; None where they are kept.

        They are kept where actions belong to them, where they are shown equally long at a rate within 2 % of `fps`, and
        where each would be repeated over a hundred times.
        """
        if fps is None or self.actions_from or self.info().has_rate(fps) or self.info().is_slow(fps):
            return None
        return fps

    def stream(self, size: tuple[int, int], fps: float | None, chunk: int = 64) -> Iterator[Tensor]:
        """Yield frames as `stream_timed` does, without their times."""
        return (frames for frames, _ in self.stream_timed(size, fps, chunk))

    def read(
        self, size: tuple[int, int], fps: float | None = None, max_frames: int | None = None, with_actions: bool = True
    ) -> Episode:
        """Read the episode, or its first `max_frames` frames, into memory, as `stream` yields it."""
        rate = self.resampled_to(fps)
        frames, times = gather(self.stream_timed(size, fps), max_frames)
        loaded = self.actions() if with_actions else None
        actions, names = loaded or (None, ())
        if actions is not None:
            if len(frames) == max_frames:
                # Rows that are missing further on may be missing here: each later one is off by one.
                self.check_rows(actions, str(self.actions_from))
                actions = actions[:max_frames]
            check_action_count(actions, len(frames), str(self.actions_from))
        return Episode(self.name, frames, times, rate or self.info().fps, actions, names)


Choices: TypeAlias = Mapping[str, str]
"""What was chosen of a source: `camera`, `observation`, `columns`, `split`, ... and the value of each."""

Source: TypeAlias = Callable[[str, Choices], Sequence[StoredEpisode]]


def refuse_unknown(choices: Choices, known: Sequence[str], source: str) -> None:
    """Raise FramepredError for a choice that this source does not have."""
    for key, value in choices.items():
        if key not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise FramepredError(f"source {source} has no choice {key!r} (given {value!r}): {has}")
