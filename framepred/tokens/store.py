"""The token store: Parquet that `datasets.load_dataset` opens, one row an episode.

The store of a tokenizer with context tokens has three columns more: `context_height`, `context_width` and, flat,
`context_tokens`: `context_height · context_width` of them a frame. One whose tokens begin from a first picture keeps
that as PNG in a column `first`.
"""

import io
import json
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from framepred.config.action_names import ActionNames, names_from_json, names_to_json
from framepred.config.frame_size import FITS, Fit, FrameSize, fit_of
from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.io.remote import is_url, place, reaching, writing_at
from framepred.sources.actions import join_names, order_actions
from framepred.sources.captions_csv import Caption
from framepred.tokens.mapped import joined
from framepred.tokens.shards import each_row, read_rows, shard_files, width
from framepred.video.clock import same_rate, say_rate


@dataclass(frozen=True)
class TokenEpisode:
    """One row of a store: tokens int32 of T frames, as the tokenizer gave them; actions as in an Episode, or None.

    `source` is where it was; `content` is a hash of what its frames were made of and `key` of all that it was made of,
    empty in stores of framepred 0.1. `captions` are what is said of it; `times` float64 (T,) in seconds those of its
    frames, which without are evenly spaced; `first` uint8 (3, H, W) is its first picture, kept where decoding needs it
    (`Tokenizer.past` > 1).
    """

    name: str
    source: str
    fps: float
    tokens: Tensor
    actions: Tensor | None
    captions: tuple[Caption, ...] = ()
    times: Tensor | None = None
    first: Tensor | None = None
    content: str = ""
    key: str = ""

    def first_frame(self, seconds: float) -> int:
        """Return the frame whose time is nearest to `seconds`; the number of frames where that is after the last."""
        if self.times is None:
            return int(seconds * self.fps + 0.5)
        steps = self.times.diff(append=self.times[-1:] + 1 / self.fps)
        return int((self.times + steps / 2 <= seconds).sum())

    def part(self, first: int | None, stop: int | None) -> "TokenEpisode":
        """Return the frames from `first` to before `stop`, with their actions; captions stay with the whole.

        So does the first picture, where the part begins later.
        """
        kept = slice(first, stop)
        actions, times = (None if x is None else x[: len(self.tokens)][kept] for x in (self.actions, self.times))
        picture = None if kept.indices(len(self.tokens))[0] else self.first
        return replace(self, tokens=self.tokens[kept], actions=actions, times=times, captions=(), first=picture)


@dataclass(frozen=True)
class StoreInfo:
    """The store's framepred.json: whose tokens these are, and what stands beside them.

    `frame_size` is a `FrameSize`, which says how pictures were made to fit. `fps` is the rate that videos were
    resampled to, 0 where they keep their own; None where an older store does not say it.
    """

    tokenizer: str
    tokenizer_sha256: str
    tokenizer_path: str
    codebook_size: int
    grid: tuple[int, int]
    context_codebook_size: int
    context_grid: tuple[int, int]
    frame_size: tuple[int, int]
    action_kind: str | None
    action_names: tuple[str, ...]
    first_pictures: bool = False
    fps: float | None = None


def is_store(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder, here or remote, is a token store."""
    try:
        folder = place(path) if is_url(path) else to_read(path)
        with reaching(path), suppress(FileNotFoundError):
            text = (folder / "framepred.json").read_text()
            return '"tokens"' in text and json.loads(text).get("kind") == "tokens"
        return False
    except (OSError, ValueError, AttributeError):
        return False


def read_store_info(path: str | os.PathLike[str]) -> StoreInfo:
    """Read a store's framepred.json."""
    file = place(path) / "framepred.json"
    try:
        about = json.loads(file.read_text())
        tok = about["tokenizer"]
        size, keys = about["frame_size"], about.get("context", {"codebook_size": 0, "grid": (0, 0)})
        # Stores of framepred 0.1 do not say their grid here; they have no context either.
        grid, context_grid = about.get("grid", (0, 0)), keys["grid"]
        frame_size = FrameSize((size[0], size[1]), FITS[FITS.index(about.get("fit", "crop"))])
        return StoreInfo(
            tok["name"], tok["sha256"], tok["path"], int(about["codebook_size"]), (grid[0], grid[1]),
            int(keys["codebook_size"]), (context_grid[0], context_grid[1]), frame_size,
            about["actions"]["kind"], names_from_json(about["actions"]), about.get("first_pictures", False),
            about.get("fps"),
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise FramepredError(
            f"{path} is no token store ({file.name}: {error}): make one with framepred tokenize"
        ) from error


def check_made_by(path: str | os.PathLike[str], tokenizer_sha256: str, fit: Fit | None = None) -> StoreInfo:
    """Return what a token store says of itself.

    Raises FramepredError unless this tokenizer made its tokens, of pictures with this fit where one is given.
    """
    info = read_store_info(path)
    if info.tokenizer_sha256 != tokenizer_sha256:
        raise FramepredError(
            f"token store {path} was made by tokenizer {info.tokenizer} ({info.tokenizer_sha256[:12]}), the run has "
            f"{tokenizer_sha256[:12]}: tokenize again with the run's tokenizer, or give the videos"
        )
    if fit is not None and (own := fit_of(info.frame_size)) != fit:
        raise FramepredError(
            f"token store {path} is of pictures made to fit by {own}, the run's by {fit}: tokenize again with --fit "
            f"{fit}, or give the videos"
        )
    return info


def names_of_stores(paths: Iterable[str | os.PathLike[str]]) -> ActionNames:
    """Return the names of the actions of stores, in the order of the first that has any; none is ().

    Raises FramepredError where they differ.
    """
    infos = ((read_store_info(path), path) for path in paths)
    return join_names((i.action_kind, i.action_names, f"token store {path}") for i, path in infos if i.action_kind)[1]


def write_store_info(path: Path, writer: str, info: StoreInfo) -> None:
    """Write a store's framepred.json; `writer` keeps several processes' unfinished files apart."""
    about = {
        "kind": "tokens",
        "tokenizer": {"name": info.tokenizer, "sha256": info.tokenizer_sha256, "path": info.tokenizer_path},
        "codebook_size": info.codebook_size,
        "grid": list(info.grid),
        "context": {"codebook_size": info.context_codebook_size, "grid": list(info.context_grid)},
        "frame_size": list(info.frame_size),
        "fit": fit_of(info.frame_size),
        "actions": {"kind": info.action_kind, **names_to_json(info.action_names)},
        "first_pictures": info.first_pictures,
        **({} if info.fps is None else {"fps": info.fps}),
    }
    with writing_at(path / "framepred.json", writer) as temporary:
        temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_store(path: str | os.PathLike[str], action_names: tuple[str, ...] | None = None) -> list[TokenEpisode]:
    """Read every episode of a token store, each once, its actions in the order of `action_names`.

    What frames have, beyond 256 MB, is not read into memory but mapped from a file.
    """
    info, files = read_store_info(path), shard_files(place(path))
    columns = [name for name in store_schema(info).names if name != "actions" or info.action_kind]
    rows = [row for file in files for row in read_rows(file, columns)]
    episodes, seen = list[TokenEpisode](), set[str]()
    for row, tokens, actions, times in zip(rows, *_of_frames(rows, info, files, columns), strict=True):
        if (key := row.get("key") or "") in seen:
            continue
        seen |= {key} - {""}
        if actions is not None and action_names is not None:
            actions = order_actions(actions, info.action_names, action_names, f"token store {path}")
        episodes.append(
            TokenEpisode(
                row["episode"], row["source"], row["fps"], tokens, actions,
                tuple(Caption(**caption) for caption in row.get("captions") or ()), times,
                _from_png(row["first"]) if info.first_pictures else None, row.get("content") or "", key,
            )
        )  # fmt: skip
    if not episodes:
        raise FramepredError(f"token store {path} holds no episode: tokenize videos into it first")
    return episodes


def _of_frames(
    rows: Sequence[dict[str, Any]], info: StoreInfo, files: Sequence[Path], columns: list[str]
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor | None]]:
    """Return the tokens, the actions and the times of rows, as a TokenEpisode has them."""
    continuous = info.action_kind == "continuous"
    per_action = len(info.action_names) if continuous else 1
    counts = (
        [row["num_frames"] * width(row) for row in rows],
        [(row["actions"] or 0) * per_action for row in rows],
        [row["times"] or 0 for row in rows],
    )
    kinds = zip((np.int32, np.float32 if continuous else np.int64, np.float64), map(sum, counts), strict=True)
    flat = joined(files, list(kinds), (part for file in files for part in each_row(file, columns, per_action)))
    tokens, actions, times = (torch.from_numpy(x).split(n) for x, n in zip(flat, counts, strict=True))
    grids = [(-1,) if "context_height" in row else (row["grid_height"], row["grid_width"]) for row in rows]
    shape = (-1, per_action) if continuous else (-1,)
    return (
        [part.view(row["num_frames"], *grid) for part, row, grid in zip(tokens, rows, grids, strict=True)],
        [None if row["actions"] is None else part.view(shape) for part, row in zip(actions, rows, strict=True)],
        [None if row["times"] is None else part for part, row in zip(times, rows, strict=True)],
    )


def other_rate_of_tokens(episode: TokenEpisode, wanted: float) -> str | None:
    """Say that an episode of a store has not the rate that is wanted: nothing resamples tokens. None where it has."""
    if same_rate(episode.fps, wanted):
        return None
    return f"{episode.name} has {say_rate(episode.fps)}, not {say_rate(wanted)}: its own frames are read, as stored"


def to_png(picture: Tensor) -> bytes:
    """Picture uint8 (3, H, W) → PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).cpu().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _from_png(data: bytes) -> Tensor:
    return torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB"))).permute(2, 0, 1).contiguous()


def store_schema(info: StoreInfo) -> pa.Schema:
    """Return the columns of a store's Parquet files."""
    action = pa.list_(pa.list_(pa.float32())) if info.action_kind == "continuous" else pa.list_(pa.int64())
    caption = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("text", pa.string())])
    sizes = info.codebook_size, info.context_codebook_size
    token, context_token = (pa.uint16() if n <= 65536 else pa.int32() for n in sizes)
    keys = [("context_height", pa.int32()), ("context_width", pa.int32()), ("context_tokens", pa.list_(context_token))]
    return pa.schema(
        [
            ("episode", pa.string()), ("source", pa.string()), ("fps", pa.float64()), ("num_frames", pa.int64()),
            ("times", pa.list_(pa.float64())),
            ("grid_height", pa.int32()), ("grid_width", pa.int32()), ("tokens", pa.list_(token)), ("actions", action),
            *(keys if info.context_codebook_size else []),
            *([("first", pa.binary())] if info.first_pictures else []),
            ("captions", pa.list_(caption)), ("content", pa.string()), ("key", pa.string()),
        ]
    )  # fmt: skip
