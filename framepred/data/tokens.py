"""The token store: Parquet that `datasets.load_dataset` opens, one row an episode."""

import json
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from framepred.data.episode import check_action_count
from framepred.data.sources import VideoFile
from framepred.errors import FramepredError, FramepredWarning
from framepred.tokenizer.base import Tokenizer
from framepred.video import probe_video

_FLUSH_TOKENS = 4_000_000
_FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class TokenEpisode:
    """One row of a store: tokens int32 (T, h, w); actions as in an Episode, or None."""

    name: str
    source: str
    fps: float
    tokens: Tensor
    actions: Tensor | None


@dataclass(frozen=True)
class StoreInfo:
    """The store's framepred.json: whose tokens these are, and what actions stand beside them."""

    tokenizer: str
    tokenizer_sha256: str
    tokenizer_path: str
    codebook_size: int
    frame_size: tuple[int, int]
    action_kind: str | None
    action_names: tuple[str, ...]


@dataclass(frozen=True)
class TokenizeProgress:
    """How far tokenizing is: episodes of `total` in the store, and frames done by this call."""

    episode: str
    done: int
    total: int
    frames: int


def is_store(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder is a token store."""
    try:
        return json.loads((Path(path) / "framepred.json").read_text()).get("kind") == "tokens"
    except (OSError, ValueError, AttributeError):
        return False


def read_store_info(path: str | os.PathLike[str]) -> StoreInfo:
    """Read a store's framepred.json."""
    file = Path(path) / "framepred.json"
    try:
        about = json.loads(file.read_text())
        tok = about["tokenizer"]
        size = about["frame_size"]
        return StoreInfo(
            tok["name"], tok["sha256"], tok["path"], about["codebook_size"], (size[0], size[1]),
            about["actions"]["kind"], tuple(about["actions"]["names"]),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FramepredError(
            f"{path} is no token store ({file.name}: {error}): make one with framepred tokenize"
        ) from error


def _write_info(path: Path, info: StoreInfo) -> None:
    about = {
        "kind": "tokens",
        "tokenizer": {"name": info.tokenizer, "sha256": info.tokenizer_sha256, "path": info.tokenizer_path},
        "codebook_size": info.codebook_size,
        "frame_size": list(info.frame_size),
        "actions": {"kind": info.action_kind, "names": list(info.action_names)},
    }
    partial = path / ".framepred.json.partial"
    try:
        partial.write_text(json.dumps(about, indent=1) + "\n")
        os.replace(partial, path / "framepred.json")
    finally:
        partial.unlink(missing_ok=True)


def read_store(path: str | os.PathLike[str]) -> list[TokenEpisode]:
    """Read every episode of a token store into memory."""
    info = read_store_info(path)
    episodes = []
    for file in _shards(Path(path)):
        columns = [name for name in _schema(info).names if name != "actions" or info.action_kind]
        table = _read_shard(file, columns)
        # As Python numbers, an hour of video would take gigabytes.
        flat = [row.values.to_numpy().astype(np.int32) for row in table["tokens"]]
        for row, ids in zip(table.drop_columns(["tokens"]).to_pylist(), flat, strict=True):
            grid = (row["num_frames"], row["grid_height"], row["grid_width"])
            tokens = torch.from_numpy(ids).view(grid)
            actions = row.get("actions")
            if actions is not None:
                kind = torch.int64 if info.action_kind == "discrete" else torch.float32
                actions = torch.tensor(actions, dtype=kind)
            episodes.append(TokenEpisode(row["episode"], row["source"], row["fps"], tokens, actions))
    if not episodes:
        raise FramepredError(f"token store {path} holds no episode: tokenize videos into it first")
    return episodes


def _shards(path: Path) -> list[Path]:
    return sorted(path.glob("episodes-*.parquet"))


def _read_shard(file: Path, columns: list[str]) -> pa.Table:
    try:
        return pq.read_table(file, columns=columns).select(columns)
    except (pa.ArrowException, OSError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise FramepredError(
            f"token store file {file} cannot be read ({reason}): delete it and tokenize again"
        ) from error


def _key(video: VideoFile) -> str:
    return str(video.path.resolve())


def _schema(info: StoreInfo) -> pa.Schema:
    action = pa.list_(pa.list_(pa.float32())) if info.action_kind == "continuous" else pa.list_(pa.int64())
    token = pa.uint16() if info.codebook_size <= 65536 else pa.int32()
    return pa.schema(
        [
            ("episode", pa.string()), ("source", pa.string()), ("fps", pa.float64()), ("num_frames", pa.int64()),
            ("grid_height", pa.int32()), ("grid_width", pa.int32()), ("tokens", pa.list_(token)), ("actions", action),
        ]
    )  # fmt: skip


def tokenize(
    videos: Sequence[VideoFile],
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    name: str,
    sha256: str,
    where: str = "",
    fps: float | None = None,
) -> Iterator[TokenizeProgress]:
    """Encode videos into the token store `out`, adding only those that it lacks.

    A video is streamed, so it may be longer than memory. Every file appears whole or not at all.
    Raises FramepredError where `out` holds another tokenizer's tokens or another kind of actions.
    """
    folder = Path(out)
    kind, names = _common_actions(videos)
    wanted = StoreInfo(name, sha256, where, tokenizer.codebook_size, tokenizer.frame_size, kind, names)
    info, done = _open_store(folder, wanted)
    rows: list[dict[str, Any]] = []
    held, since, frames_done, skipped = 0, time.monotonic(), 0, 0
    finished = len([v for v in videos if _key(v) in done])
    for video in videos:
        if _key(video) in done:
            continue
        try:
            parts = []
            for frames in video.stream(tokenizer.frame_size, fps):
                parts.append(tokenizer.encode(frames).to(torch.int32).cpu())
                frames_done += len(frames)
                yield TokenizeProgress(video.name, finished, len(videos), frames_done)
            rows.append(_row(video, torch.cat(parts), fps))
        except FramepredError as error:
            # One bad file among many must not stop the rest.
            if len(videos) == 1:
                raise
            skipped += 1
            if skipped == len(videos):
                raise FramepredError(
                    f"none of the {len(videos)} videos could be tokenized; the last: {error}"
                ) from error
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
            continue
        finished += 1
        held += len(rows[-1]["tokens"])
        if held > _FLUSH_TOKENS or time.monotonic() - since > _FLUSH_SECONDS:
            _flush(folder, rows, info)
            rows, held, since = [], 0, time.monotonic()
        yield TokenizeProgress(video.name, finished, len(videos), frames_done)
    if rows:
        _flush(folder, rows, info)


def _open_store(folder: Path, wanted: StoreInfo) -> tuple[StoreInfo, set[str]]:
    """Return what the store will hold and the keys of what it holds; what does not fit together is an error."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return wanted, set()
    old = read_store_info(folder)
    if old.tokenizer_sha256 != wanted.tokenizer_sha256:
        raise FramepredError(
            f"token store {folder} was made by tokenizer {old.tokenizer} ({old.tokenizer_sha256[:12]}), "
            f"not {wanted.tokenizer} ({wanted.tokenizer_sha256[:12]}): give another -o, or --overwrite"
        )
    shards = _shards(folder)
    if old.action_kind is None and wanted.action_kind == "continuous" and shards:
        raise FramepredError(f"token store {folder} has no actions, these are continuous: give another -o")
    if wanted.action_kind is None:
        wanted = replace(wanted, action_kind=old.action_kind, action_names=old.action_names)
    elif old.action_kind and (old.action_kind, old.action_names) != (wanted.action_kind, wanted.action_names):
        raise FramepredError(
            f"token store {folder} has {old.action_kind} actions {list(old.action_names)}, "
            f"these are {wanted.action_kind} {list(wanted.action_names)}: give another -o"
        )
    return wanted, {key for shard in shards for key in _read_shard(shard, ["source"]).column("source").to_pylist()}


def _row(video: VideoFile, tokens: Tensor, fps: float | None) -> dict[str, Any]:
    loaded = video.actions()
    if loaded:
        check_action_count(loaded[0], len(tokens), str(video.actions_file))
    return {
        "episode": video.name,
        "source": _key(video),
        "fps": fps if fps and not loaded else probe_video(video.path).fps,
        "num_frames": len(tokens),
        "grid_height": tokens.shape[1],
        "grid_width": tokens.shape[2],
        "tokens": tokens.flatten().numpy(),
        "actions": loaded[0].tolist() if loaded else None,
    }


def _flush(folder: Path, rows: list[dict[str, Any]], info: StoreInfo) -> None:
    # Hidden until whole: datasets and this module pass over names that begin with a dot.
    partial = folder / ".episodes.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_info(folder, info)
        number = 1 + max((int(p.stem.split("-")[1]) for p in _shards(folder)), default=-1)
        pq.write_table(pa.Table.from_pylist(rows, schema=_schema(info)), partial, compression="zstd")
        os.replace(partial, folder / f"episodes-{number:05d}.parquet")
    except OSError as error:
        reason = error.strerror or str(error)
        raise FramepredError(
            f"cannot write to token store {folder} ({reason}): free space or choose another -o"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _common_actions(videos: Sequence[VideoFile]) -> tuple[str | None, tuple[str, ...]]:
    """Return the one kind and names of actions that the videos share, reading every sidecar once."""
    kind: str | None = None
    names: tuple[str, ...] = ()
    first: VideoFile | None = None
    for video in videos:
        loaded = video.actions()
        if loaded is None:
            continue
        mine = "discrete" if loaded[0].ndim == 1 and not loaded[0].is_floating_point() else "continuous"
        if first is None:
            first, kind, names = video, mine, loaded[1]
        elif (kind, names) != (mine, loaded[1]):
            raise FramepredError(
                f"{video.actions_file} has {mine} actions {list(loaded[1])}, {first.actions_file} has "
                f"{kind} {list(names)}: one store holds one kind"
            )
    return kind, names
