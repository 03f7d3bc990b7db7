"""Which stored row is which video: by what it holds, not by its name or place."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framepred.errors import FramepredError
from framepred.io.remote import writing_at
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


def is_stored(video: StoredEpisode, rows: Sequence[Key]) -> bool:
    """Say whether one of the rows is this video as it is now."""
    if not rows:
        return False
    key = _key_of(video)
    return any(row.key == key if row.key else row.source == video.key for row in rows)


def drop_replaced(folder: Path, videos: Sequence[StoredEpisode], info: StoreInfo) -> None:
    """Delete rows of what videos were before they, or their actions, were replaced; their new rows are stored already.

    A row is replaced where it has the place of a video, or its frames and a place where nothing is any more.
    """
    rows = read_keys(folder)
    stored = {row.key for row in rows}
    now = [Key(v.key, v.content, key) for v in videos if (key := _key_of(v)) in stored]
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
            file.unlink()
        elif len(kept) < len(table):
            with writing_at(file) as temporary:
                pq.write_table(kept, temporary, compression="zstd")


def _key_of(video: StoredEpisode) -> str | None:
    """Return what a row of a video is known by; None where it cannot be read, which is said when it is its turn."""
    try:
        return content_of(video)
    except FramepredError:
        return None
