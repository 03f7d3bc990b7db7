"""What is not trained on: chosen once, when a run is begun, and known again by what it holds."""

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.content import content_of
from framepred.sources.contract import StoredEpisode
from framepred.tokens.store import TokenEpisode, read_store
from framepred.training.windows import held_out_end, split_episodes

START = "start.json"
Sourced = tuple[TokenEpisode, str]
"""An episode with the name of its source: sources are drawn by `data.source_power`."""


@dataclass(frozen=True)
class HeldOut:
    """What is not trained on: the frames of an episode from `first` on.

    `key` is where it was; `content` is a hash of what its frames were made of, empty where nobody knows.
    """

    name: str
    key: str
    first: int = 0
    content: str = ""


def stored_held_out(run: Path) -> tuple[HeldOut, ...] | None:
    """Return what a run that was begun holds out; None where it does not say."""
    try:
        about = json.loads((run / START).read_text())
        return tuple(HeldOut(**one) for one in about["held_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def first_held(held: Sequence[HeldOut], content: str, key: str, name: str) -> int | None:
    """Return the first frame of an episode that is held out; None where none is."""
    for one in held:
        if one.content == content if one.content and content else (one.key, one.name) == (key, name):
            return one.first
    return None


def content(video: StoredEpisode) -> str:
    """Return the hash of a video's frames, "" where it cannot be read: that is said when it is its turn."""
    with suppress(FramepredError, OSError):
        return video.content
    return ""


def divide_videos(
    videos: Sequence[StoredEpisode], held: Sequence[HeldOut]
) -> tuple[list[StoredEpisode], list[StoredEpisode]]:
    """Return the videos to train on and those that are held out as a whole."""
    out = [first_held(held, content(video), video.key, video.name) == 0 for video in videos]
    kept, apart = ([v for v, away in zip(videos, out, strict=True) if away is side] for side in (False, True))
    return kept, apart


def divide_episodes(episodes: Sequence[Sourced], held: Sequence[HeldOut]) -> tuple[list[Sourced], list[Sourced]]:
    """Return the episodes to train on and those that are held out, or the parts of one that are."""
    kept, apart = list[Sourced](), list[Sourced]()
    for episode, source in episodes:
        first = first_held(held, episode.content, episode.source, episode.name)
        if first is None or first > 0:
            kept.append((episode if first is None else episode.part(0, first), source))
        if first is not None:
            apart.append((episode.part(first, None) if first else episode, source))
    return kept, apart


def episodes_of(stores: Sequence[str], names: tuple[str, ...] | None, videos: Sequence[StoredEpisode]) -> list[Sourced]:
    """Return the episodes of stores, each once; of a run's own store, which is of `videos`, those of the videos alone.

    What a run's store holds besides is of videos that were replaced or are not given any more.
    """
    read = {e.key or (e.source, i): (e, store) for store in stores for i, e in enumerate(read_store(store, names))}
    if not videos:
        return list(read.values())
    sources: dict[str, str] = {video.key: video.source for video in videos}
    for video in videos:
        with suppress(FramepredError):
            sources[content_of(video)] = video.source
    return [(e, sources[known]) for e, _ in read.values() if (known := e.key or e.source) in sources]


def divided(episodes: list[Sourced], held: Sequence[HeldOut], fraction: float) -> tuple[list[Sourced], list[Sourced]]:
    """Return the episodes for training and for validation: what was held out when the run was begun, where it is there.

    Else whole episodes, or the end of the only one.
    """
    kept, apart = divide_episodes(episodes, held)
    if held and not apart:
        words = f"{held[0].name}, which was to be held out, is not among what could be read: other frames are held out"
        warnings.warn(FramepredWarning(words), stacklevel=2)
    if not apart and len(episodes) == 1:
        only, source = episodes[0]
        if end := held_out_end(len(only.tokens), fraction):
            kept, apart = [(only.part(0, -end), source)], [(only.part(-end, None), source)]
    elif not apart:
        kept, apart = ([episodes[i] for i in p] for p in split_episodes([e.name for e, _ in episodes], fraction))
    return kept, apart
