"""Episodes → a LeRobot dataset v3.0, written without lerobot."""

import json
import warnings
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import writing_folder
from framepred.io.progress import Progress
from framepred.sources.captions_csv import Caption
from framepred.sources.contract import StoredEpisode
from framepred.video.encode import CODECS, Codec, encoding

CAMERA = "observation.images.main"
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_FULL_BYTES = 200 << 20
_FILES_A_CHUNK = 1000


@dataclass
class _Sums:
    """Running sums of columns (n, D), from which a dataset's statistics are made."""

    count: int = 0
    total: Any = 0.0
    squares: Any = 0.0
    low: Any = np.inf
    high: Any = -np.inf

    def add(self, values: Tensor) -> None:
        rows = values.double().numpy()
        self.count += len(rows)
        self.total, self.squares = self.total + rows.sum(0), self.squares + np.square(rows).sum(0)
        self.low, self.high = np.minimum(self.low, rows.min(0)), np.maximum(self.high, rows.max(0))

    def to_json(self, shape: tuple[int, ...]) -> dict[str, Any]:
        mean = self.total / self.count
        deviation = np.sqrt(np.maximum(self.squares / self.count - np.square(mean), 0))
        values = {"min": self.low, "max": self.high, "mean": mean, "std": deviation}
        return {k: np.reshape(v, shape).tolist() for k, v in values.items()} | {"count": [self.count]}


@dataclass
class _Writing:
    """A dataset that is being written: what all episodes share, and the rows of meta/ so far."""

    root: Path
    codec: Codec
    fps: float
    size: tuple[int, int]
    action_kind: str | None
    action_names: tuple[str, ...]
    tasks: dict[str, int] = field(default_factory=dict)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    sums: dict[str, _Sums] = field(default_factory=lambda: {CAMERA: _Sums(), "action": _Sums()})


def write_lerobot(
    episodes: Sequence[StoredEpisode], out: Path, codec: str = "lossless"
) -> Generator[Progress, None, None]:
    """Write episodes as a LeRobot dataset in the folder `out`, which appears when it is whole, yielding after each.

    They must have one size, one rate and one kind of actions. A last action that is missing repeats the one before.
    Raises FramepredError where they differ, or where `out` is there already.
    """
    with writing_folder(out) as root:
        made = _begin(root, episodes, CODECS[codec])
        waiting, done, file = list(episodes), 0, 0
        while waiting:
            place = {"chunk_index": file // _FILES_A_CHUNK, "file_index": file % _FILES_A_CHUNK}
            rows = list[pa.Table]()
            video = root / _VIDEO.format(video_key=CAMERA, **place)
            with ExitStack() as stack:
                add = stack.enter_context(encoding(video, made.codec, made.fps, made.size))
                first = made.frames
                # An encoder that waits for more frames has not made the file yet.
                while waiting and not (video.exists() and video.stat().st_size > _FULL_BYTES):
                    stored = waiting.pop(0).ordered(made.action_names or None)
                    rows.append(_add_episode(made, stored, add, place, first))
                    done += 1
                    yield Progress(done, len(episodes), stored.name)
            data = root / _DATA.format(**place)
            data.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.concat_tables(rows), data)
            file += 1
        _finish(made)


def _begin(root: Path, episodes: Sequence[StoredEpisode], codec: Codec) -> _Writing:
    """Take from the first episode what all of them must share."""
    info, loaded = episodes[0].info(), episodes[0].actions()
    kind = None if loaded is None else str(loaded[0].dtype)
    return _Writing(root, codec, info.fps, (info.height, info.width), kind, loaded[1] if loaded else ())


def _add_episode(made: _Writing, stored: StoredEpisode, add: Any, place: dict[str, int], first: int) -> pa.Table:
    """Encode an episode's frames and return its rows of the data file."""
    info, loaded = stored.info(), stored.actions()
    kind = None if loaded is None else str(loaded[0].dtype)
    for what, own, common in (
        ("size", (info.height, info.width), made.size), ("rate", round(info.fps, 3), round(made.fps, 3)),
        ("actions", kind, made.action_kind),
    ):  # fmt: skip
        if own != common:
            raise FramepredError(f"{stored.where} has {what} {own}, the first episode {common}: a dataset has one")
    times = list[Tensor]()
    for frames, seconds in stored.stream_timed(made.size, None):
        for frame, second in zip(frames, seconds.tolist(), strict=True):
            add(frame, second)
        made.sums[CAMERA].add(frames.float().div(255).permute(0, 2, 3, 1).flatten(0, 2))
        times.append(seconds)
    shown = torch.cat(times)
    count, index = len(shown), len(made.episodes)
    if bool(((shown - torch.arange(count) / made.fps).abs() > 0.1 / made.fps).any()):
        message = f"{stored.where} is not shown at an even rate: a LeRobot dataset has one, {made.fps:g} a second"
        warnings.warn(FramepredWarning(message), stacklevel=3)
    tasks = _tasks(made, stored.captions(shown, made.fps), shown)
    columns: dict[str, Any] = {
        "timestamp": pa.array(np.arange(count) / made.fps, pa.float32()), "frame_index": np.arange(count),
        "episode_index": np.full(count, index), "index": made.frames + np.arange(count), "task_index": tasks,
    }  # fmt: skip
    if loaded is not None:
        columns["action"] = _actions(made, loaded[0], count, stored)
    at = (made.frames - first) / made.fps
    names = list(made.tasks)
    made.episodes.append(
        {
            "episode_index": index, "tasks": [names[i] for i in dict.fromkeys(tasks)], "length": count,
            "dataset_from_index": made.frames, "dataset_to_index": made.frames + count,
            **{f"{part}/{key}": n for part in ("data", f"videos/{CAMERA}") for key, n in place.items()},
            f"videos/{CAMERA}/from_timestamp": at, f"videos/{CAMERA}/to_timestamp": at + count / made.fps,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }
    )  # fmt: skip
    made.frames += count
    return pa.table(columns)


def _actions(made: _Writing, actions: Tensor, count: int, stored: StoredEpisode) -> pa.Array:
    if len(actions) not in (count, count - 1) or not len(actions):
        raise FramepredError(f"{stored.where} has {len(actions)} actions for {count} frames: give one between each two")
    taken = torch.cat([actions, actions[-1:]])[:count]
    made.sums["action"].add(taken.reshape(count, -1))
    if not taken.is_floating_point():
        return pa.array(taken.tolist(), pa.int64())
    return pa.array(taken.tolist(), pa.list_(pa.float32()))


def _tasks(made: _Writing, captions: Sequence[Caption], times: Tensor) -> list[int]:
    """Return the number of the task of each frame: the text of the captions that are said of it."""
    numbers = []
    for seconds in times.tolist():
        said = [c.text for c in captions if c.start <= seconds + 1e-3 < c.end]
        numbers.append(made.tasks.setdefault("; ".join(dict.fromkeys(said)), len(made.tasks)))
    return numbers


def _finish(made: _Writing) -> None:
    """Write meta/."""
    import pandas

    height, width = made.size
    about: dict[str, Any] = {
        CAMERA: {
            "dtype": "video", "shape": [height, width, 3], "names": ["height", "width", "channels"],
            "info": {
                "video.height": height, "video.width": width, "video.codec": made.codec.name,
                "video.pix_fmt": made.codec.pixels, "video.is_depth_map": False, "video.fps": _number(made.fps),
                "video.channels": 3, "has_audio": False,
            },
        }
    }  # fmt: skip
    if made.action_kind:
        discrete = made.action_kind == "torch.int64"
        about["action"] = {
            "dtype": "int64" if discrete else "float32", "shape": [len(made.action_names)],
            "names": list(made.action_names), "values": list(values_of(made.action_names)),
        }  # fmt: skip
    about["timestamp"] = {"dtype": "float32", "shape": [1], "names": None}
    for key in ("frame_index", "episode_index", "index", "task_index"):
        about[key] = {"dtype": "int64", "shape": [1], "names": None}
    info = {
        "codebase_version": "v3.0", "robot_type": None, "total_episodes": len(made.episodes),
        "total_frames": made.frames, "total_tasks": len(made.tasks), "chunks_size": _FILES_A_CHUNK,
        "data_files_size_in_mb": 100, "video_files_size_in_mb": _FULL_BYTES >> 20, "fps": _number(made.fps),
        "splits": {"train": f"0:{len(made.episodes)}"}, "data_path": _DATA, "video_path": _VIDEO, "features": about,
    }  # fmt: skip
    stats = {CAMERA: made.sums[CAMERA].to_json((3, 1, 1))}
    if made.action_kind:
        stats["action"] = made.sums["action"].to_json((-1,))
    file = made.root / _EPISODES
    file.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(made.episodes), file)
    for name, value in (("info", info), ("stats", stats)):
        (made.root / "meta" / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    tasks = pandas.DataFrame({"task_index": list(made.tasks.values())}, index=list(made.tasks))
    tasks.to_parquet(made.root / "meta" / "tasks.parquet")


def _number(value: float) -> int | float:
    return int(value) if value == int(value) else value
