"""Minari datasets (`minari:NAME`, `minari:PATH`) → episodes: T + 1 observations of T actions."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.sources.captions_csv import Caption
from framepred.sources.columns import as_actions, said_rate
from framepred.sources.contract import Actions, Choices, StoredEpisode, VideoInfo, refuse_unknown
from framepred.sources.folder import hash_of
from framepred.sources.pictures import PicturesEpisode, image_of


@dataclass(frozen=True)
class MinariEpisode(PicturesEpisode):
    """An episode of the dataset whose files are in the folder `data`; `observation` is the way to its pictures."""

    source: str
    data: Path
    index: int
    steps: int
    observation: tuple[str, ...]
    frame_size: tuple[int, int]
    fps: float
    action_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.data.parent.name}-{self.index:06d}"

    @property
    def where(self) -> str:
        return f"{self.source}#{self.index}"

    @property
    def key(self) -> str:
        return f"minari:{self.data.resolve()}?observation={'.'.join(self.observation)}#{self.index}"

    @property
    def num_bytes(self) -> int:
        return self.steps * self.frame_size[0] * self.frame_size[1]

    @property
    def state(self) -> str:
        about = (self.data / "metadata.json").stat()
        return repr((self.key, self.steps, about.st_size, about.st_mtime_ns))

    @property
    def content(self) -> str:
        # One file for all episodes in HDF5, a folder of each in Arrow.
        files = [self.data / "main_data.hdf5", *sorted((self.data / str(self.index)).rglob("*"))]
        hashes = [hash_of(file) for file in files if file.is_file()]
        return hashlib.sha256(repr((hashes, self.observation, self.index, self.fps)).encode()).hexdigest()

    @property
    def actions_from(self) -> str | None:
        return self.where

    def info(self) -> VideoInfo:
        height, width = self.frame_size
        count = self.steps + 1
        return VideoInfo(width, height, self.fps, count, count / self.fps, "minari")

    def own_actions(self) -> Actions | None:
        actions, names = _all_actions(self.data, self.source)[self.index]
        return as_actions(actions, names, self.where)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        return ()

    def pictures(self) -> Iterator[tuple[float, Tensor]]:
        observations = next(iter(_episodes(self.data, [self.index], self.source)))["observations"]
        for key in self.observation:
            observations = observations[key if isinstance(observations, dict) else int(key)]
        if len(observations) != self.steps + 1:
            raise FramepredError(
                f"{self.where} has {len(observations)} observations of {self.steps} actions, {self.steps + 1} are "
                "needed: record it again"
            )
        for t, picture in enumerate(observations):
            yield t / self.fps, image_of(picture, self.where)


def find(where: str, choices: Choices) -> Sequence[StoredEpisode]:
    """Return the episodes of a Minari dataset: a folder, or a name, which is downloaded where it is not here."""
    source = f"minari:{where}"
    refuse_unknown(choices, ("observation", "fps"), source)
    data = _folder(where, source)
    fps, storage = said_rate(choices.get("fps"), source), _storage(data, source)
    observation, shape = _choose_pictures(storage.observation_space, choices.get("observation"), source)
    with _reading(data, source):
        steps = [int(about["total_steps"]) for about in storage.get_episode_metadata(range(storage.total_episodes))]
    return [MinariEpisode(source, data, i, count, observation, shape, fps) for i, count in enumerate(steps)]


def _folder(where: str, source: str) -> Path:
    """Return the folder of a dataset's data."""
    _require()
    from minari import load_dataset
    from minari.storage import get_dataset_path

    path = to_read(where)
    for folder in (path, path / "data"):
        if (folder / "metadata.json").is_file():
            return folder
    if path.exists():
        raise FramepredError(f"source {source} is no Minari dataset (no data/metadata.json): give its folder")
    try:
        if not (get_dataset_path(where) / "data").is_dir():
            load_dataset(where, download=True)
        return get_dataset_path(where) / "data"
    except Exception as error:
        # Minari's hosts fail in ways of their own.
        raise FramepredError(
            f"source {source} is neither here nor could it be downloaded ({_reason(error)}): give a name or a folder"
        ) from error


def _require() -> None:
    try:
        import h5py  # noqa: F401
        import minari  # noqa: F401
    except ImportError as error:
        raise FramepredError("Minari datasets need an extra package: pip install 'framepred[minari]'") from error


@contextmanager
def _reading(data: Path, source: str) -> Iterator[None]:
    """Turn whatever is wrong with a dataset's files into one line."""
    try:
        yield
    except (OSError, KeyError, ValueError, TypeError, AssertionError, RuntimeError) as error:
        raise FramepredError(f"source {source} cannot be read ({_reason(error)}): restore {data}") from error


def _storage(data: Path, source: str) -> Any:
    """Open a dataset's files; one that does not name its spaces is refused, to make its environment would run code."""
    from minari.dataset.minari_storage import MinariStorage

    with _reading(data, source):
        about = json.loads((data / "metadata.json").read_text())
        if not {"observation_space", "action_space"} <= about.keys():
            raise ValueError("it does not name its spaces")
        return MinariStorage.read(data)


def _episodes(data: Path, indices: Iterable[int], source: str) -> Iterator[dict[str, Any]]:
    storage = _storage(data, source)
    with _reading(data, source):
        yield from storage.get_episodes(indices)


@functools.lru_cache(maxsize=4)
def _all_actions(data: Path, source: str) -> list[tuple[np.ndarray[Any, Any], tuple[str, ...]]]:
    """Return the actions of every episode, which are read together with its pictures, and the names of columns."""
    storage = _storage(data, source)
    return [_flat(episode["actions"]) for episode in _episodes(data, range(storage.total_episodes), source)]


def _flat(actions: Any, name: str = "") -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """Join actions of a dictionary or tuple into columns, named by the way to each."""
    if isinstance(actions, (dict, tuple)):
        items = actions.items() if isinstance(actions, dict) else enumerate(actions)
        parts = [_flat(value, f"{name}.{key}" if name else str(key)) for key, value in items]
        return np.concatenate([p for p, _ in parts], 1, dtype=np.float64), tuple(n for _, names in parts for n in names)
    values = np.asarray(actions)
    rows = values.reshape(len(values), -1)
    if not name:
        return (values, ()) if values.ndim == 1 else (rows, ())
    return rows, (name,) if rows.shape[1] == 1 else tuple(f"{name}.{i}" for i in range(rows.shape[1]))


def _choose_pictures(space: Any, wanted: str | None, source: str) -> tuple[tuple[str, ...], tuple[int, int]]:
    """Return the way to the pictures in an observation space, and their height and width."""
    found = {".".join(way): (way, size) for way, size in _pictures_in(space)}
    if wanted is not None:
        if wanted not in found:
            listed = ", ".join(filter(None, found)) or "none"
            raise FramepredError(f"source {source} has no pictures {wanted!r} among its observations: it has {listed}")
        return found[wanted]
    if not found:
        raise FramepredError(f"source {source} has no pictures: its observations are {str(space)[:120]}")
    if len(found) > 1:
        raise FramepredError(
            f"source {source} has several pictures ({', '.join(found)}): choose one with --observation KEY, "
            f"or {source}?observation=KEY"
        )
    return next(iter(found.values()))


def _pictures_in(space: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], tuple[int, int]]]:
    from gymnasium import spaces

    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        items = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in items:
            yield from _pictures_in(part, (*way, str(key)))
    elif isinstance(space, spaces.Box) and space.dtype == np.uint8:
        if len(space.shape) == 2 or (len(space.shape) == 3 and space.shape[2] in (1, 3)):
            yield way, (space.shape[0], space.shape[1])
        elif len(space.shape) == 3 and space.shape[0] in (1, 3):
            yield way, (space.shape[1], space.shape[2])


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
