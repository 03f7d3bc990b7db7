"""LeRobot datasets, v3.0 and v2.1 (`lerobot:PATH`, `lerobot:hf://OWNER/NAME`) → episodes, read without lerobot."""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from framepred.config.action_names import ActionNames
from framepred.errors import FramepredError
from framepred.io import hub
from framepred.sources.captions_csv import Caption
from framepred.sources.columns import as_actions, parse_columns
from framepred.sources.contract import Actions, Choices, StoredEpisode, VideoInfo, refuse_unknown
from framepred.sources.folder import hash_of
from framepred.sources.lerobot_meta import Feature, Meta, Place, column_names, read_meta, read_places, read_table
from framepred.sources.pictures import PicturesEpisode, image_of
from framepred.video.stretch import stream_stretch


@dataclass(frozen=True)
class LeRobotEpisode(PicturesEpisode):
    """An episode of the dataset in the folder `root`, seen by one camera; `acts` is the column of its actions."""

    source: str
    root: Path
    fps: float
    camera: Feature
    acts: Feature | None
    place: Place
    tasks: tuple[tuple[int, str], ...]
    action_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        # On the Hub, a folder's name is that of a revision.
        named = self.source if hub.is_address(self.source.removeprefix("lerobot:")) else str(self.root.resolve())
        return f"{Path(named).name}-{self.place.index:06d}"

    @property
    def where(self) -> str:
        return f"{self.source.split('#')[0]}#{self.place.index}"

    @property
    def key(self) -> str:
        return f"lerobot:{self.root.resolve()}?camera={self.camera.key}#{self.place.index}"

    @property
    def num_bytes(self) -> int:
        file = self.root / (self.place.video or self.place.data)
        try:
            return file.stat().st_size * self.place.length // max(1, self.place.frames_in_video)
        except OSError:
            return 0

    @property
    def state(self) -> str:
        files = [self.root / file for file in (self.place.data, self.place.video) if file]
        return repr((self.key, self.place, [(f.stat().st_size, f.stat().st_mtime_ns) for f in files]))

    @property
    def content(self) -> str:
        place = self.place
        files = [hash_of(self.root / file) for file in (place.data, place.video) if file]
        about = (files, self.camera.key, place.index, place.first, place.length, self.fps)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    @property
    def said(self) -> str:
        return repr((self.tasks, self.place.tasks))

    @property
    def actions_from(self) -> str | None:
        return f"{self.where} ({self.acts.key})" if self.acts else None

    def info(self) -> VideoInfo:
        (height, width), count = self.camera.frame_size, self.place.length
        return VideoInfo(width, height, self.fps, count, count / self.fps, self.camera.codec)

    def own_actions(self) -> Actions | None:
        if self.acts is None:
            return None
        rows = self._rows()
        names = ActionNames(self.acts.names, self.acts.values)
        return as_actions(_matrix(rows[self.acts.key], self.where), names, self.where)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        """Return the texts of its tasks, each for as long as it goes on."""
        end = float(times[-1]) + 1 / fps
        rows, texts = self._rows(), dict(self.tasks)
        if "task_index" not in rows.column_names:
            return tuple(Caption(0.0, end, text) for text in self.place.tasks)
        numbers, starts = rows["task_index"].to_pylist(), self._times(rows).tolist()
        parts = [(task, next(group)) for task, group in groupby(range(len(numbers)), key=numbers.__getitem__)]
        stops = [*(starts[first] for _, first in parts[1:]), end]
        return tuple(
            Caption(starts[first], stop, texts[task])
            for (task, first), stop in zip(parts, stops, strict=True)
            if texts.get(task)
        )

    def pictures(self) -> Iterator[tuple[float, Tensor]]:
        return zip(self._times(self._rows()).tolist(), self._pictures(), strict=True)

    def _pictures(self) -> Iterator[Tensor]:
        place, key = self.place, self.camera.key
        if place.video is not None:
            return stream_stretch(self.root / place.video, place.first, place.length, place.frames_in_video)
        rows = self._checked(
            read_table(self.root / place.data, (key, "episode_index"), [("episode_index", "=", place.index)])
        )
        return (self._picture(value.as_py()) for value in rows[key])

    def _picture(self, value: Any) -> Tensor:
        if value["bytes"] is None and value.get("path"):
            try:
                value = (self.root / value["path"]).read_bytes()
            except OSError as error:
                raise FramepredError(f"{self.where}: picture {value['path']} cannot be read ({error})") from error
        return image_of(value, self.where)

    def _rows(self) -> pa.Table:
        """Return the rows of the episode, without pictures."""
        columns = (self.acts.key,) if self.acts else ()
        table = _file_rows(self.root / self.place.data, columns)
        own = np.flatnonzero(table["episode_index"].to_numpy() == self.place.index)
        return self._checked(table.take(own))

    def _checked(self, rows: pa.Table) -> pa.Table:
        if len(rows) != self.place.length:
            raise FramepredError(
                f"{self.where} is {self.place.length} frames long in meta/, and {self.place.data} has {len(rows)} rows "
                "of it: counts disagree; copy or download the dataset again"
            )
        return rows

    def _times(self, rows: pa.Table) -> Tensor:
        """Return its rows' timestamps float64 (T,) from the first, or times at an even rate where they do not grow."""
        if "timestamp" in rows.column_names and len(rows):
            times = torch.from_numpy(rows["timestamp"].to_numpy().astype(np.float64)).flatten()
            if bool((times.diff() > 0).all()):
                return times - times[0]
        return torch.arange(len(rows), dtype=torch.float64) / self.fps


@functools.lru_cache(maxsize=2)
def _file_rows(file: Path, columns: tuple[str, ...]) -> pa.Table:
    """Read a data file, which many episodes share, without its pictures."""
    held = column_names(file)
    missing = [name for name in ("episode_index", *columns) if name not in held]
    if missing:
        raise FramepredError(f"{file} has no column {missing[0]!r}: it has {', '.join(held)}")
    return read_table(file, [name for name in held if name in ("episode_index", "timestamp", "task_index", *columns)])


def _matrix(column: pa.ChunkedArray, where: str) -> np.ndarray[Any, Any]:
    try:
        values = np.array(column.to_pylist())
        return values.astype(np.float64) if values.dtype == object else values
    except (TypeError, ValueError) as error:
        raise FramepredError(f"{where} has actions of different lengths, or some that are missing: {error}") from error


def find(where: str, choices: Choices) -> Sequence[StoredEpisode]:
    """Return the episodes of a LeRobot dataset in a folder or on the Hub."""
    source = f"lerobot:{where}"
    refuse_unknown(choices, ("camera", "columns"), source)
    root = hub.resolve(where, ["meta/*"], "dataset")
    meta = read_meta(root, source)
    camera = _choose_camera(meta, choices.get("camera"), source)
    root = hub.resolve(where, ["meta/*", "data/*", f"videos/*{camera.key}/*"], "dataset")
    acts = _choose_actions(meta, parse_columns(choices, ("actions",), source).get("actions"), source)
    tasks = tuple(sorted(meta.tasks.items()))
    places = read_places(root, meta, camera, source)
    return [LeRobotEpisode(source, root, meta.fps, camera, acts, place, tasks) for place in places]


def _choose_camera(meta: Meta, wanted: str | None, source: str) -> Feature:
    cameras = meta.cameras()
    listed = ", ".join(camera.key for camera in cameras)
    if not cameras:
        raise FramepredError(f"source {source} has no camera: its columns are {', '.join(meta.features)}")
    if wanted is None:
        if len(cameras) > 1:
            raise FramepredError(
                f"source {source} has {len(cameras)} cameras ({listed}): "
                f"choose one with --camera NAME, or {source}?camera=NAME"
            )
        return cameras[0]
    found = [c for c in cameras if c.key == wanted] or [c for c in cameras if c.key.split(".")[-1] == wanted]
    if len(found) != 1:
        raise FramepredError(f"source {source} has no camera {wanted!r}: give one of {listed}")
    return found[0]


def _choose_actions(meta: Meta, wanted: str | None, source: str) -> Feature | None:
    if wanted == "none":
        return None
    if wanted is None:
        named = [f for f in meta.features.values() if f.key == "action"]
        named = named or [f for f in meta.features.values() if f.key.split(".")[0] in ("action", "actions")]
        if len(named) > 1:
            listed = ", ".join(f.key for f in named)
            raise FramepredError(f"source {source} has several actions ({listed}): give --columns actions=NAME")
        return named[0] if named else None
    if wanted not in meta.features or meta.features[wanted].dtype in ("video", "image", "string"):
        numbers = [f.key for f in meta.features.values() if f.dtype not in ("video", "image", "string")]
        raise FramepredError(f"source {source} has no numbers {wanted!r} for actions: give one of {', '.join(numbers)}")
    return meta.features[wanted]
