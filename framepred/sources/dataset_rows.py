"""The rows of a Hugging Face dataset, of Parquet files, WebDataset tars or a folder, streamed by `datasets`."""

import atexit
import functools
import glob
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.sources.contract import Choices

Row = Mapping[str, Any]
_BUILDERS = {".parquet": "parquet", ".tar": "webdataset"}


@dataclass(frozen=True)
class Table:
    """What `datasets` opens: local `files` by a `builder`, or the folder or repository `where`."""

    where: str
    builder: str | None
    files: tuple[str, ...]
    config: str | None
    split: str

    @property
    def source(self) -> str:
        return f"hf:{self.where}"

    @property
    def name(self) -> str:
        return Path(self.where.rstrip("/*")).stem

    @property
    def key(self) -> str:
        place = str(Path(self.where).resolve()) if self.files or Path(self.where).exists() else self.where
        return f"hf:{place}?config={self.config or ''}&split={self.split}"

    @property
    def state(self) -> str:
        about = [Path(file).stat() for file in self.files]
        return repr((self.key, [(a.st_size, a.st_mtime_ns) for a in about]))


def open_table(where: str, choices: Choices) -> Table:
    """Find out what is to be opened: a file, a pattern of files, a folder, or a repository on the Hub."""
    where = where.removeprefix("//")
    config, split = choices.get("config"), choices.get("split", "train")
    files = [where] if to_read(where).is_file() else []
    if glob.has_magic(where):
        files = sorted(glob.glob(where))  # noqa: PTH207
    if Path(where).is_dir() and not _saved(where):
        found = sorted(str(p) for p in Path(where).rglob("*") if p.suffix in _BUILDERS)
        files = found if len({Path(p).suffix for p in found}) == 1 else []
    if files:
        endings = {Path(file).suffix for file in files}
        if len(endings) > 1 or not endings <= _BUILDERS.keys():
            raise FramepredError(f"source hf:{where} is of {', '.join(sorted(endings))}: give .parquet or .tar files")
        return Table(where, _BUILDERS[endings.pop()], tuple(files), config, "train")
    if glob.has_magic(where) or (where.startswith(("/", ".")) and not Path(where).exists()):
        raise FramepredError(f"source hf:{where} does not exist: give a file, a folder or OWNER/NAME on the Hub")
    return Table(where, None, (), config, split)


def _saved(where: str) -> bool:
    """Say whether a folder was written by `save_to_disk`."""
    return (Path(where) / "state.json").is_file() or (Path(where) / "dataset_dict.json").is_file()


def _dataset(table: Table) -> Any:
    import datasets

    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    if _saved(table.where):
        stored = datasets.load_from_disk(table.where)
        stored = stored[table.split] if isinstance(stored, datasets.DatasetDict) else stored
        opened = stored.to_iterable_dataset()
    elif table.builder:
        opened = datasets.load_dataset(table.builder, data_files=list(table.files), split="train", streaming=True)
    else:
        opened = datasets.load_dataset(table.where, table.config, split=table.split, streaming=True)
    # Pictures and videos stay as they are encoded: `datasets` decodes videos only with torchcodec.
    return opened.decode(False)


@contextmanager
def reading(source: str) -> Iterator[None]:
    """Turn whatever `datasets` and the network raise into one line."""
    try:
        yield
    except FramepredError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        cause = f"{reason}; {type(error.__cause__).__name__}" if error.__cause__ else reason
        raise FramepredError(
            f"source {source} cannot be read ({cause}): check the name, that the files are whole, and the network"
        ) from error


class _Reader:
    """Goes through a table's rows; a later row is reached by going on, an earlier one by beginning anew."""

    def __init__(self, table: Table, columns: Sequence[str] | None = None) -> None:
        self._opened = _dataset(table)
        if columns is not None:
            self._opened = self._opened.select_columns(list(columns))
        self._rows, self._at = iter(self._opened), -1
        self._row: Row | None = None

    def row(self, number: int) -> Row | None:
        """Return a row by its number; None behind the last."""
        if number < self._at:
            self._rows, self._at = iter(self._opened.skip(number)), number - 1
        while self._at < number:
            self._row, self._at = next(self._rows, None), self._at + 1
        return self._row


@functools.lru_cache(maxsize=2)
def _reader(table: Table) -> _Reader:
    return _Reader(table)


# A stream that is still open when Python ends would complain that pyarrow is gone.
atexit.register(_reader.cache_clear)


def rows_from(table: Table, first: int, count: int) -> Iterator[Row]:
    """Yield rows `first` to `first + count - 1`."""
    for number in range(first, first + count):
        with reading(table.source):
            row = _reader(table).row(number)
        if row is None:
            raise FramepredError(f"source {table.source} ends before row {number}: it changed while it was read")
        yield row


def all_rows(table: Table, columns: Sequence[str]) -> Iterator[Row]:
    """Yield every row, with these columns alone."""
    with reading(table.source):
        yield from _dataset(table).select_columns(list(columns))


def first_row(table: Table) -> Row:
    """Return the first row with all columns; FramepredError where there is none."""
    with reading(table.source):
        row = _reader(table).row(0)
    if row is None:
        raise FramepredError(f"source {table.source} has no rows")
    return row


def bytes_of(value: Any, where: str) -> bytes:
    """Return an encoded picture or video: its bytes, or those of the file that it names."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return bytes(value["bytes"])
    path = value if isinstance(value, str) else value.get("path") if isinstance(value, Mapping) else None
    if path is None:
        raise FramepredError(f"{where} holds {type(value).__name__} where a picture or video should be")
    import fsspec  # type: ignore[import-untyped]

    with reading(f"{where}, {path}"), fsspec.open(path, "rb") as file:
        return bytes(file.read())
