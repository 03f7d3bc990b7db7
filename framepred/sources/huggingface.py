"""Hugging Face datasets (`hf:OWNER/NAME`), local Parquet, WebDataset tars and folders → episodes, streamed.

A row is an episode (a column `video`, or `frames` that holds a list of pictures), or a row is one frame (`frames` holds
one picture) and `episode` tells where an episode ends. A column within another is `outer.inner`.
"""

import hashlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.captions_csv import Caption
from framepred.sources.columns import as_actions, parse_columns, said_rate
from framepred.sources.contract import Actions, Choices, StoredEpisode, VideoInfo, refuse_unknown
from framepred.sources.dataset_rows import Row, Table, all_rows, bytes_of, first_row, open_table, rows_from
from framepred.sources.folder import hash_of
from framepred.sources.pictures import PicturesEpisode, image_of
from framepred.video.probe import probe_video
from framepred.video.read import stream_timed

_ROLES = ("video", "frames", "actions", "episode", "text")
# What columns are called where --columns does not say.
_NAMES = {
    "actions": ("actions", "action", "json.actions", "json.action"),
    "text": ("text", "caption", "txt"),
    "episode": ("episode", "episode_index", "episode_id", "json.episode"),
}


@dataclass(frozen=True)
class RowEpisode(PicturesEpisode):
    """An episode in `count` rows of a table from row `first`: its `column` holds a video or pictures."""

    source: str
    table: Table
    number: int
    first: int
    count: int
    column: str
    is_video: bool
    fps: float
    texts: tuple[str, ...]
    acts: np.ndarray[Any, Any] | None = field(default=None, compare=False)
    action_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return f"{self.table.name}-{self.number:06d}"

    @property
    def where(self) -> str:
        return f"{self.source}#{self.number}"

    @property
    def key(self) -> str:
        return f"{self.table.key}&column={self.column}#{self.number}"

    @property
    def num_bytes(self) -> int:
        return 0

    @property
    def state(self) -> str:
        return f"{self.table.state} {self.key}"

    @property
    def content(self) -> str:
        files = [hash_of(Path(file)) for file in self.table.files] or self.table.state
        about = (files, self.column, self.first, self.count, self.fps)
        return hashlib.sha256(repr(about).encode()).hexdigest()

    @property
    def said(self) -> str:
        return repr(self.texts)

    @property
    def actions_from(self) -> str | None:
        return None if self.acts is None else f"{self.where} (actions)"

    def own_actions(self) -> Actions | None:
        return None if self.acts is None else as_actions(self.acts, (), self.where)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        return tuple(Caption(0.0, float(times[-1]) + 1 / fps, text) for text in self.texts)

    def info(self) -> VideoInfo:
        if self.is_video:
            with self._file() as file:
                return probe_video(file)
        _, picture = next(self.pictures())
        count = self.count if self.count > 1 else None
        return VideoInfo(picture.shape[2], picture.shape[1], self.fps, count, count and count / self.fps, "image")

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.is_video:
            yield from super().stream_timed(size, fps, chunk)
            return
        with self._file() as file:
            yield from stream_timed(file, size, self.resampled_to(fps), chunk, whole=self.acts is not None)

    def pictures(self) -> Iterator[tuple[float, Tensor]]:
        number = 0
        for row in rows_from(self.table, self.first, self.count):
            value = _value(row, self.column, self.where)
            for picture in value if isinstance(value, list) else [value]:
                data = bytes_of(picture, self.where) if isinstance(picture, (Mapping, str)) else picture
                yield number / self.fps, image_of(data, self.where)
                number += 1

    @contextmanager
    def _file(self) -> Iterator[Path]:
        """Yield the row's video as a file, which is what reads videos can read."""
        (row,) = rows_from(self.table, self.first, 1)
        data = bytes_of(_value(row, self.column, self.where), self.where)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / self.name
            file.write_bytes(data)
            yield file


def find(where: str, choices: Choices) -> Sequence[StoredEpisode]:
    """Return the episodes of a dataset; its rows are gone through once, without pictures where they can be left out."""
    source = f"hf:{where}"
    refuse_unknown(choices, ("columns", "config", "split", "fps"), source)
    given = parse_columns(choices, _ROLES, source)
    table = open_table(where, choices)
    row = first_row(table)
    role, column = _choose_pictures(row, given, source)
    named = {name: given.get(name) or _called(row, names) for name, names in _NAMES.items()}
    columns = {name: chosen for name, chosen in named.items() if chosen and chosen != "none"}
    one_a_row = role == "video" or isinstance(_value(row, column, source), list)
    if not one_a_row and "episode" not in columns:
        raise FramepredError(
            f"source {source} has one picture a row in {column!r}: say which column tells episodes apart, "
            f"--columns episode=NAME; it has {', '.join(row)}"
        )
    fps = 0.0 if role == "video" else said_rate(choices.get("fps"), source)
    found = []
    for number, (first, rows) in enumerate(_split(table, column, columns, one_a_row)):
        acts = _actions(rows, columns.get("actions"), one_a_row, f"{source}#{number}")
        texts = dict.fromkeys(str(t) for r in rows if "text" in columns and (t := _value(r, columns["text"], source)))
        found.append(
            RowEpisode(
                source, table, number, first, len(rows), column, role == "video", fps, tuple(texts), acts,
            )
        )  # fmt: skip
    return found


def _split(table: Table, column: str, columns: Mapping[str, str], one_a_row: bool) -> Iterator[tuple[int, list[Row]]]:
    """Yield (first row, rows without pictures) of each episode."""
    light = dict.fromkeys(name.split(".")[0] for name in columns.values())
    rows = enumerate(all_rows(table, list(light) or [column.split(".")[0]]))
    if one_a_row:
        yield from ((at, [row if light else {}]) for at, row in rows)
        return
    seen = set()
    for episode, group in groupby(rows, key=lambda item: _value(item[1], columns["episode"], table.source)):
        if episode in seen:
            raise FramepredError(
                f"source {table.source}: rows of episode {episode!r} are in several places: sort them by "
                f"{columns['episode']!r}"
            )
        seen.add(episode)
        numbered = list(group)
        yield numbered[0][0], [row for _, row in numbered]


def _actions(rows: Sequence[Row], column: str | None, one_a_row: bool, where: str) -> np.ndarray[Any, Any] | None:
    if column is None:
        return None
    values = [_value(row, column, where) for row in rows]
    if one_a_row and values[0] is None:
        return None
    try:
        return np.array(values[0] if one_a_row else values)
    except ValueError as error:
        raise FramepredError(f"{where} has actions of different lengths in {column!r}: {error}") from error


def _choose_pictures(row: Row, given: Mapping[str, str], source: str) -> tuple[str, str]:
    """Return the role and the column of what is to be seen: what is given, or the only one that there is."""
    for role in ("video", "frames"):
        if role in given:
            _value(row, given[role], source)
            return role, given[role]
    found = [(of, name) for name, value in row.items() if (of := _role(value))]
    if len(found) != 1:
        listed = ", ".join(f"{role}={name}" for of, name in found) or f"none among {', '.join(row)}"
        raise FramepredError(
            f"source {source} has {len(found)} columns of videos or pictures ({listed}): "
            "choose one with --columns video=NAME or frames=NAME"
        )
    return found[0]


def _role(value: Any) -> str | None:
    """Say whether a value is a video, or a picture or several."""
    if isinstance(value, list):
        return "frames" if value and _role(value[0]) == "frames" else None
    if isinstance(value, Mapping) and value.keys() <= {"bytes", "path"}:
        if not isinstance(value.get("bytes"), bytes):
            name = str(value.get("path"))
            return "video" if name.lower().endswith((".mp4", ".avi", ".mov", ".mkv", ".webm")) else "frames"
        value = value["bytes"]
    if not isinstance(value, bytes):
        return None
    if value[4:8] == b"ftyp" or value[:4] == b"\x1aE\xdf\xa3" or value[8:12] == b"AVI ":
        return "video"
    try:
        Image.open(io.BytesIO(value))
    except (UnidentifiedImageError, OSError, ValueError):
        return None
    return "frames"


def _called(row: Row, names: Sequence[str]) -> str | None:
    """Return the first of these columns that there is."""
    for name in names:
        outer, _, inner = name.partition(".")
        if outer in row and (not inner or (isinstance(row[outer], Mapping) and inner in row[outer])):
            return name
    return None


def _value(row: Row, column: str, where: str) -> Any:
    """Return a column of a row, or what is within it: `outer.inner`."""
    if column in row:
        return row[column]
    outer, _, inner = column.partition(".")
    if not inner or not isinstance(row.get(outer), Mapping):
        raise FramepredError(f"{where} has no column {column!r}: it has {', '.join(row)}")
    return _value(row[outer], inner, where)
