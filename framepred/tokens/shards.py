"""The Parquet files of a token store, here or remote: which there are, and their columns."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from framepred.errors import FramepredError
from framepred.io.remote import reaching

SHARDS = "episodes-*.parquet"
_TOKENS, _LISTS = ("tokens", "context_tokens"), ("actions", "times")
_NOTHING = np.empty(0)


def shard_files(path: Path) -> list[Path]:
    """Return a store's Parquet files, in order."""
    with reaching(path):
        return sorted(path.glob(SHARDS))


def stored_episodes(path: Path) -> int:
    """Return how many episodes a store's files hold."""
    return sum(_rows(file) for file in shard_files(path))


def stored_frames(path: Path) -> int:
    """Return how many frames the episodes of a store's files have."""
    return sum(sum(read_shard(file, ["num_frames"])["num_frames"].to_pylist()) for file in shard_files(path))


_ADDED = ("captions", "times", "content", "key")


@contextmanager
def _opened(file: Path, columns: list[str]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
    """Yield an open Parquet file and which of the columns it has; FramepredError where it is broken."""
    try:
        with reaching(file), file.open("rb") as opened, pq.ParquetFile(opened) as stored:
            # Older stores lack these columns.
            yield stored, [c for c in columns if c not in _ADDED or c in stored.schema_arrow.names]
    except (pa.ArrowException, OSError, KeyError) as error:
        raise _broken(file, str(error).splitlines()[0]) from error


def _broken(file: Path, reason: str) -> FramepredError:
    return FramepredError(f"token store file {file} cannot be read ({reason}): delete it and tokenize again")


def read_shard(file: Path, columns: list[str]) -> pa.Table:
    """Read columns of one Parquet file; FramepredError where it is broken."""
    with _opened(file, columns) as (stored, held):
        return stored.read(columns=held).select(held)


def _rows(file: Path) -> int:
    with _opened(file, []) as (stored, _):
        return int(stored.metadata.num_rows)


def read_groups(file: Path, columns: list[str]) -> Iterator[pa.Table]:
    """Read columns of one Parquet file a part at a time, so that it may be larger than memory."""
    with _opened(file, columns) as (stored, held):
        for number in range(stored.num_row_groups):
            yield stored.read_row_group(number, columns=held).select(held)


def width(row: dict[str, Any]) -> int:
    """Return how many tokens a frame of a row has, those of its context with them."""
    context = row["context_height"] * row["context_width"] if "context_height" in row else 0
    return row["grid_height"] * row["grid_width"] + context


def read_rows(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    """Return the rows of a file without what they have of each frame: of actions and times how many, None for none."""
    table = read_shard(file, [name for name in columns if name not in _TOKENS])
    lists = [name for name in _LISTS if name in table.column_names]
    rows = table.drop_columns(lists).to_pylist()
    counts = {name: pc.list_value_length(table[name]).to_pylist() for name in lists}
    return [row | {name: counts[name][i] if name in lists else None for name in _LISTS} for i, row in enumerate(rows)]


def each_row(file: Path, columns: list[str], per_action: int) -> Iterator[list[npt.NDArray[Any]]]:
    """Yield what each row of a file has of its frames, flat: tokens int32, those of a frame's context first; _LISTS.

    Raises FramepredError where an action has not `per_action` numbers.
    """
    sizes = ("num_frames", "grid_height", "grid_width", "context_height", "context_width")
    for table in read_groups(file, [name for name in columns if name in (*sizes, *_TOKENS, *_LISTS)]):
        tokens = [name for name in ("context_tokens", "tokens") if name in table.column_names]
        lists = [name for name in _LISTS if name in table.column_names]
        for i, row in enumerate(table.drop_columns([*tokens, *lists]).to_pylist()):
            widths = [row[of + "height"] * row[of + "width"] for of in ("context_", "grid_")[-len(tokens) :]]
            parts = [
                table[name][i].values.to_numpy().reshape(row["num_frames"], count)
                for name, count in zip(tokens, widths, strict=True)
            ]
            others = [_flat(table[name][i].values) if name in lists else _NOTHING for name in _LISTS]
            if "actions" in lists and others[0].size != per_action * len(table["actions"][i].values or ()):
                raise _broken(file, f"an action has not {per_action} numbers")
            yield [np.concatenate(parts, 1).astype(np.int32).ravel(), *others]


def _flat(values: pa.Array | None) -> npt.NDArray[Any]:
    """Return what a row has in a column of numbers, or of lists of numbers, one after the other."""
    if values is None:
        return _NOTHING
    return (values.flatten() if pa.types.is_list(values.type) else values).to_numpy()
