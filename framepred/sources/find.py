"""SOURCE arguments → stored episodes: videos and folders, here or behind a URL, and `PREFIX:WHERE`."""

import importlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import parse_qsl, quote

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.io.remote import is_url
from framepred.sources.contract import Choices, Source, StoredEpisode
from framepred.sources.folder import VideoFile, find_videos
from framepred.sources.remote import find_remote

ENTRY_POINTS = "framepred.sources"
SOURCES = {
    "hf": "framepred.sources.huggingface:find",
    "lerobot": "framepred.sources.lerobot:find",
    "minari": "framepred.sources.minari:find",
}
"""Prefix → the module and function that finds its episodes, imported when it is asked for."""

# A single letter is a drive, and `hf://` without more is a model or tokenizer on the Hub.
_EPISODES = r"#(\d+|(?=:))(?:(:)(\d*))?"
_ADDRESS = re.compile(rf"([a-z][a-z0-9_-]+):(.+?)(?:\?((?:[a-z]+=[^&#]*&?)+))?(?:{_EPISODES})?", re.DOTALL)


@dataclass(frozen=True)
class Address:
    """A SOURCE with a prefix: `PREFIX:WHERE?KEY=VALUE&…#EPISODE`, `#3` one episode, `#3:7` those from
    3 to before 7, `#3:` and `#:7` those from and before."""

    prefix: str
    where: str
    choices: tuple[tuple[str, str], ...] = ()
    episodes: slice | None = None

    @staticmethod
    def parse(text: str) -> "Address | None":
        """Read an address; None for what is none, and for a path that exists."""
        found = _ADDRESS.fullmatch(text)
        if not found or Path(text).exists():
            return None
        prefix, where, query, first, colon, stop = found.groups()
        episodes = None
        if first is not None:
            start = int(first or 0)
            episodes = slice(start, int(stop) if stop else None if colon else start + 1)
        choices = tuple(parse_qsl(query or "", keep_blank_values=True))
        return Address(prefix, where, choices, episodes)


def with_choices(source: str, choices: Choices) -> str:
    """Return a SOURCE, or NAME=SOURCE, with more choices: those of a command's options; a video or folder has none."""
    name, equals, named = source.partition("=")
    if equals and Address.parse(source) is None and not Path(source).exists():
        return f"{name}={with_choices(named, choices)}"
    if not choices or Address.parse(source) is None:
        return source
    query = "&".join(f"{key}={quote(value, safe='=,/:.')}" for key, value in choices.items())
    body, hash, episodes = source.rpartition("#") if re.search(_EPISODES + "$", source) else (source, "", "")
    join = "&" if re.search(r"\?[a-z]+=[^&]*", body) else "?"
    return f"{body}{join}{query}{hash}{episodes}"


def find_episodes(sources: Iterable[str | os.PathLike[str]]) -> list[StoredEpisode]:
    """Return the episodes of SOURCE arguments, in order, each once; none is an error.

    Raises FramepredError for a source that does not exist, cannot be read or holds no episode.
    """
    found: dict[str, StoredEpisode] = {}
    for source in map(str, sources):
        address = Address.parse(source)
        for episode in find_videos([source]) if address is None else _open(source, address):
            found.setdefault(episode.key, episode)
    return list(found.values())


def find_episode(source: str | os.PathLike[str], actions: str | None = None) -> StoredEpisode:
    """Return the one episode that a video file or `PREFIX:WHERE#EPISODE` is.

    A video that is read with another file of `actions` must be whole; one that is read with "none", need not be.
    Raises FramepredError for a source of several.
    """
    address = Address.parse(str(source))
    if address is None:
        return VideoFile(to_read(source), str(source), whole=None if actions is None else actions != "none")
    episodes = _open(str(source), address)
    if len(episodes) > 1:
        raise FramepredError(
            f"source {source} holds {len(episodes)} episodes, one is wanted: give {source}#0 to #{len(episodes) - 1}"
        )
    return episodes[0]


def source_of(episode: str | os.PathLike[str]) -> str:
    """Return the SOURCE that holds an episode: the folder of a video, or its address without the number."""
    if Address.parse(str(episode)) is None:
        return str(Path(episode).parent)
    return re.sub(_EPISODES + "$", "", str(episode))


def _open(source: str, address: Address) -> Sequence[StoredEpisode]:
    choices, url = dict(address.choices), f"{address.prefix}:{address.where}"
    if is_url(url):
        episodes: Sequence[StoredEpisode] = find_remote(url, choices)
    else:
        episodes = _source(source, address.prefix)(address.where, choices)
    if not episodes:
        raise FramepredError(f"source {source} holds no episode")
    if address.episodes is None:
        return episodes
    chosen = episodes[address.episodes]
    if not chosen:
        raise FramepredError(
            f"source {source} has episodes 0 to {len(episodes) - 1}, none from {address.episodes.start} on: "
            "give another number behind the #"
        )
    return chosen


def _source(source: str, prefix: str) -> Source:
    """Return what finds the episodes of a prefix."""
    if prefix in SOURCES:
        module, _, function = SOURCES[prefix].partition(":")
        return getattr(importlib.import_module(module), function)
    added = entry_points(group=ENTRY_POINTS)
    if prefix not in added.names:
        known = ", ".join(f"{name}:" for name in sorted({*SOURCES, *added.names})) or "none"
        raise FramepredError(
            f"source {source} does not exist, and {prefix}: is no kind of source: "
            f"give a video, a folder of videos, or one of {known}"
        )
    try:
        return added[prefix].load()
    except (ImportError, AttributeError) as error:
        raise FramepredError(f"source {source}: what was installed for {prefix}: cannot be loaded ({error})") from error
