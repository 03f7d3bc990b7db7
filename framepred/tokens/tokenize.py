"""Videos → the token store: streamed, resumable, in any number of processes and shards."""

import os
import time
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from framepred.config.action_names import ActionNames, values_of
from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.io.progress import Progress
from framepred.io.remote import Unreachable, place, reaching, writing_at
from framepred.sources.actions import join_names, kind_of
from framepred.sources.content import distinct
from framepred.sources.contract import StoredEpisode
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.keys import Key, drop_replaced, find_missing, read_keys
from framepred.tokens.shards import read_shard, shard_files
from framepred.tokens.store import StoreInfo, read_store_info, store_schema, write_store_info
from framepred.tokens.workers import News, Workers, encode_here, encode_in_processes
from framepred.tokens.writer import only_writer
from framepred.video.clock import same_rate, say_rate

_FLUSH_TOKENS = 4_000_000
_FLUSH_SECONDS = 30.0


@dataclass(frozen=True)
class TokenizeProgress(Progress):
    """How many episodes are in the store, and what this call did: frames, frames a second, videos skipped."""

    frames: int = 0
    rate: float = 0.0
    skipped: int = 0


@dataclass(frozen=True)
class Agreed:
    """What jobs of different shards must agree on: all videos, each once, and the actions that they share."""

    videos: Sequence[StoredEpisode]
    action_kind: str | None
    action_names: ActionNames

    @staticmethod
    def on(videos: Sequence[StoredEpisode], store: Path) -> "Agreed":
        """Look at all videos for a store; FramepredError where they share no kind of actions."""
        once = distinct(videos)
        old = read_store_info(store).action_names if _holds_something(store) else ()
        return Agreed(once, *common_actions(once, old))


def tokenize(
    videos: Sequence[StoredEpisode] | Agreed,
    out: str | os.PathLike[str],
    tokenizer: Tokenizer,
    name: str,
    sha256: str,
    where: str = "",
    fps: float | None = None,
    workers: Workers | None = None,
    shard: tuple[int, int] = (1, 1),
) -> Generator[TokenizeProgress, None, None]:
    """Encode videos into the token store `out`, adding only those that it lacks.

    A video is known by what it holds: one that was moved is not stored again, one that was replaced, or whose actions
    changed, takes the place of what was stored of it. `out` may be remote (`s3://…`). `shard` (i, n) takes every n-th
    video from the i-th, counted from 1; different shards may write into one folder at once. The rows are the same
    whatever `workers` and shards. Every file appears whole or not at all.
    Raises FramepredError where `out` holds another tokenizer's tokens, those of another rate or another kind of
    actions, or where another process is writing it.
    """
    folder = place(out)
    with only_writer(folder, shard):
        # All videos, not this shard's: what the shards write must fit together.
        agreed = videos if isinstance(videos, Agreed) else Agreed.on(videos, folder)
        yield from _tokenize(agreed, folder, tokenizer, (name, sha256, where), fps, workers, shard)


def store_info(
    agreed: Agreed, folder: Path, tokenizer: Tokenizer, origin: tuple[str, str, str], fps: float | None
) -> StoreInfo:
    """Return what a store says of itself once videos are in it; FramepredError where they do not fit what is in it."""
    old = read_store_info(folder) if _holds_something(folder) else None
    names = _as_known(tokenizer, agreed.action_names) if agreed.action_kind else ()
    wanted = StoreInfo(
        *origin, tokenizer.codebook_size, tokenizer.grid, tokenizer.context_codebook_size, tokenizer.context_grid,
        tokenizer.frame_size, agreed.action_kind, names, tokenizer.past > 1, fps or 0.0,
    )  # fmt: skip
    return wanted if old is None else _joined(folder, old, wanted)


def _tokenize(
    agreed: Agreed, folder: Path, tokenizer: Tokenizer, origin: tuple[str, str, str],
    fps: float | None, workers: Workers | None, shard: tuple[int, int],
) -> Iterator[TokenizeProgress]:  # fmt: skip
    number, shards = shard
    videos = agreed.videos
    info = store_info(agreed, folder, tokenizer, origin, fps)
    mine = videos[number - 1 :: shards]
    lacking, known = find_missing(mine, read_keys(folder))
    missing = [video.ordered(info.action_names) for video in lacking]
    if not missing:
        return
    files = _Files(folder, "episodes" if shards == 1 else f"episodes-{number}of{shards}", info)
    meter = _Meter([v.num_bytes for v in missing])
    news = encode_in_processes(missing, workers, fps) if workers else encode_here(missing, tokenizer, fps)
    skipped, done = 0, len(mine) - len(missing)
    try:
        for item in news:
            if isinstance(item.error, Unreachable):
                # Nothing is wrong with the video: it must not count as done.
                raise item.error
            if item.error:
                skipped += 1
                _skip(item.error, skipped, len(videos))
            elif item.row:
                files.add(item.row)
                known.append(Key(*(item.row[name] for name in Key._fields)))
                done += 1
            if files.due():
                files.write()
            meter.note(item)
            yield meter.progress(missing[item.index].name, done, len(mine), skipped)
    except (KeyboardInterrupt, GeneratorExit, Unreachable):
        files.write_what_is_missing()
        raise
    finally:
        news.close()
    files.write()
    drop_replaced(folder, known, info)
    warn_of_rates([r for f in shard_files(folder) for r in read_shard(f, ["fps"]).column("fps").to_pylist()], fps)


def warn_of_rates(rates: Sequence[float], wanted: float | None) -> None:
    """Warn where episodes have different frame rates, or another than the one that was `wanted`."""
    counts: Counter[float] = Counter()
    for rate in sorted(rates):
        counts[next((r for r in counts if same_rate(r, rate)), rate)] += 1
    others = [r for r in counts if wanted is not None and not same_rate(r, wanted)]
    shown = "; ".join(f"{n} of {say_rate(r)}" for r, n in counts.most_common(5)) + ("; …" if len(counts) > 5 else "")
    if wanted is not None and others:
        kept = f"{sum(counts[r] for r in others)} of {len(rates)} episodes are not resampled to {say_rate(wanted)}"
        warnings.warn(
            FramepredWarning(f"{kept} ({shown}): actions belong to their frames, or they are too slow"), stacklevel=3
        )
    elif len(counts) > 1:
        warnings.warn(
            FramepredWarning(f"the episodes' rates differ ({shown}): --fps resamples videos without actions"),
            stacklevel=3,
        )


def _skip(error: FramepredError, skipped: int, videos: int) -> None:
    """Warn of a video that cannot be tokenized: it must not stop the others. Raise where it is the last of all."""
    if videos == 1:
        raise error
    if skipped == videos:
        raise FramepredError(f"none of the {videos} videos could be tokenized; the last: {error}") from error
    warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=3)


class _Meter:
    """Counts frames, and guesses the time left from the share of all bytes that is done."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes, self.shares = sizes, [0.0] * len(sizes)
        self.frames, self.began, self.bytes = 0, time.monotonic(), 0.0

    def note(self, item: News) -> None:
        self.bytes += (item.share - self.shares[item.index]) * self.sizes[item.index]
        self.shares[item.index] = item.share
        self.frames += item.frames

    def progress(self, episode: str, done: int, total: int, skipped: int) -> TokenizeProgress:
        elapsed = max(time.monotonic() - self.began, 1e-9)
        left = elapsed * (sum(self.sizes) / self.bytes - 1) if self.bytes else None
        return TokenizeProgress(done, total, episode, left, self.frames, self.frames / elapsed, skipped)


def _holds_something(folder: Path) -> bool:
    with reaching(folder):
        return folder.is_dir() and not all(p.name.startswith(".") for p in folder.iterdir())


def _joined(folder: Path, old: StoreInfo, wanted: StoreInfo) -> StoreInfo:
    """Return what a store will hold that holds something already; what does not fit together is an error."""
    if old.tokenizer_sha256 != wanted.tokenizer_sha256:
        raise FramepredError(
            f"token store {folder} was made by tokenizer {old.tokenizer} ({old.tokenizer_sha256[:12]}), "
            f"not {wanted.tokenizer} ({wanted.tokenizer_sha256[:12]}): give another -o, or --overwrite"
        )
    if old.frame_size != wanted.frame_size:
        raise FramepredError(
            f"token store {folder} is of frames of {old.frame_size}, these are {wanted.frame_size}: give another -o"
        )
    if (fit := fit_of(old.frame_size)) != (given := fit_of(wanted.frame_size)):
        raise FramepredError(
            f"token store {folder} is of pictures made to fit by {fit}, these are by {given}: give --fit {fit}, or "
            "another -o"
        )
    if old.fps is not None and old.fps != wanted.fps:
        was, now = (
            f"of {rate:g} frames a second" if rate else "of the videos' own rates" for rate in (old.fps, wanted.fps)
        )
        raise FramepredError(f"token store {folder} is {was}, these are {now}: give the same --fps, or another -o")
    shards = shard_files(folder)
    if old.action_kind is None and wanted.action_kind == "continuous" and shards:
        raise FramepredError(f"token store {folder} has no actions, these are continuous: give another -o")
    if wanted.action_kind is None:
        wanted = replace(wanted, action_kind=old.action_kind, action_names=old.action_names)
    elif old.action_kind == wanted.action_kind and sorted(old.action_names) == sorted(wanted.action_names):
        wanted = replace(wanted, action_names=_in_order(old.action_names, wanted.action_names))
    elif old.action_kind:
        raise FramepredError(
            f"token store {folder} has {old.action_kind} actions {list(old.action_names)}, "
            f"these are {wanted.action_kind} {list(wanted.action_names)}: give another -o"
        )
    return wanted


def _in_order(old: tuple[str, ...], new: tuple[str, ...]) -> ActionNames:
    """Return the columns of a store in their order, with the values of new videos: ids that are stored keep theirs."""
    return ActionNames(old, values_of(new) if values_of(old) else ())


class _Files:
    """Holds one process's rows, and writes them to PREFIX-00000.parquet and on, beside the store's framepred.json."""

    def __init__(self, folder: Path, prefix: str, info: StoreInfo) -> None:
        self.folder, self.prefix, self.info = folder, prefix, info
        self.rows: list[dict[str, Any]] = []
        self.tokens, self.since = 0, time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self.tokens += row["tokens"].size + row["context_tokens"].size

    def due(self) -> bool:
        return self.tokens > _FLUSH_TOKENS or time.monotonic() - self.since > _FLUSH_SECONDS

    def write(self) -> None:
        """Write the rows that are held, if any, as one more file."""
        if self.rows:
            self._write_file()
            self.rows, self.tokens, self.since = [], 0, time.monotonic()

    def _write_file(self) -> None:
        write_store_info(self.folder, self.prefix, self.info)
        table = pa.Table.from_pylist(self.rows, schema=store_schema(self.info))
        with writing_at(self.folder / f"{self.prefix}-{self._next():05d}.parquet") as temporary:
            pq.write_table(table, temporary, compression="zstd")

    def write_what_is_missing(self) -> None:
        """Write the rows that no file holds: an interrupt may come after their file was written."""
        stored = {row.key for row in read_keys(self.folder)}
        self.rows = [row for row in self.rows if row["key"] not in stored]
        self.write()

    def _next(self) -> int:
        taken = [p.stem.rsplit("-", 1) for p in shard_files(self.folder)]
        return 1 + max((int(number) for prefix, number in taken if prefix == self.prefix), default=-1)


def _as_known(tokenizer: Tokenizer, names: ActionNames) -> tuple[str, ...]:
    """Return names of actions in the order in which the tokenizer knows them, where it knows any."""
    known: tuple[str, ...] = getattr(tokenizer, "action_names", ())
    if known and sorted(known) != sorted(names):
        raise FramepredError(
            f"the tokenizer knows actions {list(known)}, these are {list(names)}: "
            "give videos with those, or another tokenizer"
        )
    return known or names


def common_actions(videos: Sequence[StoredEpisode], known: tuple[str, ...]) -> tuple[str | None, ActionNames]:
    """Return the one kind and the names of actions that the videos share, values after the `known` ones.

    Raises FramepredError where they do not share one.
    """

    def found() -> Iterator[tuple[str, tuple[str, ...], str]]:
        for video in videos:
            # Its own error comes when it is its turn, and stops only it.
            with suppress(FramepredError):
                if loaded := video.actions():
                    yield kind_of(loaded[0]), loaded[1], str(video.actions_from)

    return join_names(found(), known)
