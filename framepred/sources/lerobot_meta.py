"""The meta/ folder of a LeRobot dataset, v3.0 and v2.1 → which episodes stand where."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framepred.errors import FramepredError


@dataclass(frozen=True)
class Feature:
    """A column of the dataset: `names` are those of its numbers, `values` those of ids, `codec` that of a video."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    codec: str
    depth: bool
    values: tuple[str, ...] = ()

    @staticmethod
    def of(key: str, about: Mapping[str, Any]) -> "Feature":
        names = about.get("names") or ()
        if isinstance(names, Mapping):
            # {"motors": [...]}, or {"x": 0, "y": 1}.
            lists = [v for v in names.values() if isinstance(v, list)]
            names = [name for part in lists for name in part] if lists else list(names)
        video = about.get("info") or about.get("video_info") or {}
        return Feature(
            key, about["dtype"], tuple(about.get("shape") or ()), tuple(map(str, names)),
            video.get("video.codec") or about["dtype"],
            bool(video.get("is_depth_map") or video.get("video.is_depth_map")), tuple(about.get("values") or ()),
        )  # fmt: skip

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of a camera's pictures."""
        sizes = dict(zip(self.names, self.shape, strict=False))
        if {"height", "width"} <= sizes.keys():
            return sizes["height"], sizes["width"]
        channels_last = self.shape[-1:] and self.shape[-1] in (1, 3, 4)
        height, width = self.shape[:2] if channels_last else self.shape[-2:]
        return height, width


@dataclass(frozen=True)
class Place:
    """Where an episode stands: its rows in a data file and, for a camera with videos, its frames in a video file."""

    index: int
    length: int
    data: str
    video: str | None
    first: int
    frames_in_video: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Meta:
    """What meta/ says: rate in Hz, columns by name, the texts of tasks by number."""

    version: str
    fps: float
    features: Mapping[str, Feature]
    tasks: Mapping[int, str]
    info: Mapping[str, Any]

    def cameras(self) -> list[Feature]:
        """Return the columns of pictures, but for depth maps."""
        return [f for f in self.features.values() if f.dtype in ("video", "image") and not f.depth]


def read_meta(root: Path, source: str) -> Meta:
    """Read meta/info.json and the tasks; FramepredError where they are missing or of another version."""
    file = root / "meta" / "info.json"
    try:
        info = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FramepredError(
            f"source {source} is no LeRobot dataset (no meta/info.json): give the folder that holds meta/ and data/"
        ) from None
    except (OSError, ValueError) as error:
        raise FramepredError(f"{file} cannot be read ({error}): restore it") from error
    version = str(info.get("codebase_version", "")) if isinstance(info, dict) else ""
    if version not in ("v2.0", "v2.1", "v3.0"):
        raise FramepredError(f"source {source} is LeRobot {version or 'of no version'}: v3.0, v2.1 and v2.0 are read")
    try:
        features = {key: Feature.of(key, about) for key, about in info["features"].items()}
        return Meta(version, float(info["fps"]), features, _tasks(root, version), info)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FramepredError(f"{file} is not as LeRobot {version} has it ({error!r}): restore it") from error


def read_places(root: Path, meta: Meta, camera: Feature, source: str) -> list[Place]:
    """Return where each episode stands, in order; FramepredError where what meta/ counts disagrees."""
    try:
        places = _places_v3(root, meta, camera) if meta.version == "v3.0" else _places_v2(root, meta, camera)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FramepredError(
            f"source {source}: its episodes are not as LeRobot {meta.version} has them ({error!r}): restore meta/"
        ) from error
    counts = {"episodes": len(places), "frames": sum(p.length for p in places)}
    for what, count in counts.items():
        said = meta.info.get(f"total_{what}", count)
        if said != count:
            raise FramepredError(
                f"source {source}: meta/info.json counts {said} {what}, its episodes are {count}: restore meta/"
            )
    return places


def _places_v3(root: Path, meta: Meta, camera: Feature) -> list[Place]:
    files = sorted((root / "meta" / "episodes").glob("*/*.parquet"))
    rows = [row for file in files for row in _without_stats(file).to_pylist()]
    rows.sort(key=lambda row: row["episode_index"])
    videos, used = [_video_of(row, meta, camera) for row in rows], dict[str | None, int]()
    firsts = []
    for row, video in zip(rows, videos, strict=True):
        # The timestamps in meta/ drift: frames are counted.
        firsts.append(used.get(video, 0))
        used[video] = firsts[-1] + int(row["length"])
    return [
        Place(
            int(row["episode_index"]), int(row["length"]),
            meta.info["data_path"].format(
                chunk_index=row["data/chunk_index"], file_index=row["data/file_index"],
                episode_chunk=row["data/chunk_index"], episode_index=row["episode_index"],
            ),
            video, first, used[video], tuple(row.get("tasks") or ()),
        )
        for row, video, first in zip(rows, videos, firsts, strict=True)
    ]  # fmt: skip


def _video_of(row: Mapping[str, Any], meta: Meta, camera: Feature) -> str | None:
    if camera.dtype != "video":
        return None
    where = f"videos/{camera.key}"
    return str(
        meta.info["video_path"].format(
            video_key=camera.key, chunk_index=row[f"{where}/chunk_index"], file_index=row[f"{where}/file_index"]
        )
    )


def _places_v2(root: Path, meta: Meta, camera: Feature) -> list[Place]:
    places = []
    for row in _lines(root / "meta" / "episodes.jsonl"):
        index, length = int(row["episode_index"]), int(row["length"])
        names = {"episode_chunk": index // int(meta.info["chunks_size"]), "episode_index": index}
        video = None
        if camera.dtype == "video":
            video = str(meta.info["video_path"].format(video_key=camera.key, **names))
        data = meta.info["data_path"].format(**names)
        places.append(Place(index, length, data, video, 0, length, tuple(row.get("tasks") or ())))
    return sorted(places, key=lambda place: place.index)


def _tasks(root: Path, version: str) -> dict[int, str]:
    if version != "v3.0":
        return {int(row["task_index"]): str(row["task"]) for row in _lines(root / "meta" / "tasks.jsonl")}
    table = read_table(root / "meta" / "tasks.parquet")
    # A table that pandas wrote, whose index is the text.
    text = next((name for name in table.column_names if name != "task_index"), None)
    if text is None:
        return {}
    return dict(zip(table["task_index"].to_pylist(), map(str, table[text].to_pylist()), strict=True))


def column_names(file: Path) -> list[str]:
    """Return the columns of a Parquet file; FramepredError where it is missing or broken."""
    try:
        return list(pq.read_schema(file).names)
    except FileNotFoundError:
        raise FramepredError(f"{file} does not exist: the dataset is not whole; copy or download it again") from None
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _without_stats(file: Path) -> pa.Table:
    return read_table(file, [name for name in column_names(file) if not name.startswith("stats/")])


def read_table(file: Path, columns: Sequence[str] | None = None, filters: Any = None) -> pa.Table:
    """Read columns of a Parquet file; FramepredError where it is missing or broken."""
    try:
        return pq.read_table(file, columns=columns and list(columns), filters=filters, partitioning=None)
    except FileNotFoundError:
        raise FramepredError(f"{file} does not exist: the dataset is not whole; copy or download it again") from None
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> FramepredError:
    reason = (str(error).splitlines() or [repr(error)])[0]
    return FramepredError(f"{file} cannot be read ({reason}): the dataset is not whole; copy or download it again")


def _lines(file: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise FramepredError(f"{file} does not exist: the dataset is not whole; copy or download it again") from None
    except (OSError, ValueError) as error:
        raise FramepredError(f"{file} cannot be read ({error}): restore it") from error
