"""Which stored row is which video: by what it holds, not by its name or place."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framepred.errors import FramepredError
from framepred.io.remote import Unreachable, delete_at, writing_at
from framepred.sources.content import content_of
from framepred.sources.contract import StoredEpisode
from framepred.tokens.shards import read_shard, shard_files
from framepred.tokens.store import StoreInfo, store_schema


class Key(NamedTuple):
    """What a row is known by: where its video was, what its frames were made of, and all that it was made of.

    The last two are empty in stores of framepred 0.1.
    """

    source: str
    content: str
    key: str


def read_keys(folder: Path) -> list[Key]:
    """Return what the rows of a store are known by."""
    rows = [row for file in shard_files(folder) for row in read_shard(file, list(Key._fields)).to_pylist()]
    return [Key(row["source"], row.get("content") or "", row.get("key") or "") for row in rows]


def find_missing(videos: Sequence[StoredEpisode], rows: Sequence[Key]) -> tuple[list[StoredEpisode], list[Key]]:
    """Return the videos that none of the rows is, as they are now; and what the others are known by."""
    if not rows:
        return list(videos), []
    keys, places = {row.key for row in rows} - {""}, {row.source for row in rows if not row.key}
    missing, known = list[StoredEpisode](), list[Key]()
    for video in videos:
        key = _key_of(video)
        if key is not None and key.key in keys:
            known.append(key)
        elif video.key not in places:
            missing.append(video)
    return missing, known


def drop_replaced(folder: Path, now: Sequence[Key], info: StoreInfo) -> None:
    """Delete rows of what videos were before they, or their actions, were replaced.

    `now` is what videos are known by whose rows are stored. A row is replaced where it has the place of one, or its
    frames and a place where nothing is any more.
    """
    rows = read_keys(folder)
    keys, places, contents = ({k[i] for k in now} for i in (2, 0, 1))
    old = {
        row.key
        for row in rows
        if row.key and row.key not in keys
        and (row.source in places or (row.content in contents and not Path(row.source).exists()))
    }  # fmt: skip
    for file in shard_files(folder) if old else ():
        table = read_shard(file, store_schema(info).names)
        if "key" not in table.column_names:
            continue
        kept = table.filter(pc.invert(pc.is_in(table["key"], pa.array(sorted(old)))))
        if not len(kept):
            delete_at(file)
        elif len(kept) < len(table):
            with writing_at(file) as temporary:
                pq.write_table(kept, temporary, compression="zstd")


def _key_of(video: StoredEpisode) -> Key | None:
    """Return what a row of a video is known by; None where it cannot be read, which is said when it is its turn."""
    try:
        return Key(video.key, video.content, content_of(video))
    except Unreachable:
        raise
    except FramepredError:
        return None
