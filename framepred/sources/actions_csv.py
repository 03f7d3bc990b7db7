"""Action files: `NAME.actions.csv` beside `NAME.mp4`, row t between frame t and frame t+1."""

import csv
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from framepred.config.action_names import ActionNames
from framepred.errors import FramepredError
from framepred.io.atomic import writing

# Each id is a row of the model's vocabulary.
_MAX_ID = 65_535
_MAX_FLOAT = torch.finfo(torch.float32).max
_WORD = re.compile(r"[^\W\d][^;\t\n\r]*")
_MISSING = {"na", "n/a", "null", "nil"}
_UNNAMED = re.compile(r"unnamed(\W.*)?", re.IGNORECASE)
# Names of columns without what is no letter, in lower case.
_COUNTERS = set(
    """
    clock count counter date datetime elapsed elapsedms elapseds elapsedtime epoch frame framecount frameid frameidx
    frameindex framenr frameno framenum framenumber frames i id idx index iter iteration level0 line ms msec n no nr ns
    num number pts row rowid rownumber s sec seconds secs seq sequence stamp step stepindex steps t tick ticks time
    timems timens times timesec timeseconds timestamp timestampms timestamps timestep timesteps timeus tms unix
    unixtime us utc
    """.split()  # noqa: SIM905
)
_FEW = 8
"""Rows from which a column that counts them is no chance."""

_Rows = list[tuple[int, list[str]]]
"""Rows of a file with the numbers of their lines."""


def actions_path(video: str | os.PathLike[str]) -> Path:
    """Return where a video's action file is looked for: NAME.mp4 → NAME.actions.csv."""
    return Path(video).with_suffix(".actions.csv")


def read_actions(path: str | os.PathLike[str]) -> tuple[Tensor, ActionNames]:
    """Read a header of action names and one row a frame → (actions, names).

    One column of integers or of words is discrete: int64 (T,). Anything else is continuous: float32 (T, D). The values
    of ids have names where the file spells them ("left"), or where `recording.json` beside it lists them. Raises
    FramepredError for a row that is blank or no action, and for a column that is none: without a name, or a counter.
    """
    path = Path(path)
    header, *rows = _read_rows(path)
    names = _column_names(path, header[1])
    for number, row in rows:
        if len(row) != len(names):
            raise _wrong(path, number, f"{len(row)} columns where the header has {len(names)}")
    cells = [row for _, row in rows]
    if len(names) == 1 and _is_word(cells[0][0]):
        return _spelled(path, names, rows)
    for number, row in rows:
        for cell in row:
            if not _is_number(cell) or not abs(float(cell)) <= _MAX_FLOAT:
                raise _wrong(path, number, f"{cell!r} is not a finite number; mend or remove that row")
    values = torch.tensor([[float(cell) for cell in row] for row in cells], dtype=torch.float64)
    _check_counters(path, names, values)
    if len(names) == 1 and all(_is_integer(row[0]) for row in cells):
        ids = [int(row[0]) for row in cells]
        if min(ids) < 0 or max(ids) > _MAX_ID:
            bad = min(ids) if min(ids) < 0 else max(ids)
            raise FramepredError(
                f"actions file {path}: action id {bad} is not allowed; ids are 0 to {_MAX_ID}, "
                f"numbers that are no ids have a point: {bad}.0"
            )
        return torch.tensor(ids, dtype=torch.int64), ActionNames(names, _recorded_values(path, max(ids)))
    return values.float(), ActionNames(names)


def write_actions(
    path: str | os.PathLike[str], actions: Tensor, names: Sequence[str], values: Sequence[str] = ()
) -> None:
    """Write actions, int64 (T,) or float (T, D), as an action file; `values` are the names of ids, if these are to be
    written instead."""
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        rows = [[a] for a in actions.tolist()] if actions.ndim == 1 else actions.tolist()
        writer.writerows([[values[a]] for (a,) in rows] if values else rows)


def _wrong(path: Path, line: int, what: str) -> FramepredError:
    return FramepredError(f"actions file {path}, line {line}: {what}")


def _read_rows(path: Path) -> _Rows:
    """Return the rows of a file, the header first, without spaces around the cells; blank ones only end a file."""
    if not path.is_file():
        raise FramepredError(f"actions file {path} does not exist: give a CSV with a header row and one row a frame")
    try:
        # Spreadsheets begin their files with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FramepredError(f"actions file {path} is not CSV text ({error})") from error
    while rows and not any(rows[-1][1]):
        rows.pop()
    if len(rows) < 2:
        raise FramepredError(f"actions file {path} has no rows: give a header row and one row a frame")
    for number, row in rows:
        if not any(row):
            raise _wrong(path, number, "a blank row, and each row is the action of one frame; fill or remove it")
    return rows


def _column_names(path: Path, names: list[str]) -> list[str]:
    if all(_is_number(name) for name in names if name):
        raise FramepredError(f"actions file {path} has no header row: the first row must name the actions")
    for number, name in enumerate(names, 1):
        if not name or _is_number(name) or _UNNAMED.fullmatch(name):
            raise FramepredError(
                f"actions file {path}: column {number} has no name ({name!r}), like the index of a saved table; "
                "remove that column, or name the action"
            )
        if name in names[: number - 1]:
            raise FramepredError(f"actions file {path}: two columns are named {name!r}; give each a name of its own")
    return names


def _check_counters(path: Path, names: list[str], values: Tensor) -> None:
    """Raise FramepredError for a column that counts frames or tells the time: float64 (T, D) values."""
    steps = values.diff(dim=0)
    for name, step in zip(names, steps.T, strict=True):
        counts = len(values) >= _FEW and bool((step == 1).all())
        plain = re.sub(r"[\W_]+", "", name.lower())
        if counts or (len(step) and bool((step > 0).all()) and plain in _COUNTERS):
            raise FramepredError(
                f"actions file {path}: column {name!r} only counts up, from row to row; it is an index or a time, "
                "no action: remove it"
            )


def _spelled(path: Path, names: list[str], rows: _Rows) -> tuple[Tensor, ActionNames]:
    """Return ids and the names of a column of words; the ids are in the order of the alphabet."""
    words = [row[0] for _, row in rows]
    for (number, _), word in zip(rows, words, strict=True):
        if not _is_word(word) or word.lower() in _MISSING:
            raise _wrong(path, number, f"{word!r} is no name of an action like {words[0]!r}; mend or remove that row")
    known = sorted(set(words))
    if names[0] in known:
        raise FramepredError(f"actions file {path} has no header row: the first row is the action {names[0]!r}")
    if len(words) >= _FEW and len(known) == len(words):
        raise FramepredError(f"actions file {path}: column {names[0]!r} differs in every row; it names no actions")
    place = {word: i for i, word in enumerate(known)}
    return torch.tensor([place[word] for word in words]), ActionNames(names, known, spelled=True)


def _recorded_values(path: Path, highest: int) -> tuple[str, ...]:
    """Return the names of ids that `framepred record` listed beside a file that it wrote; none where there are none."""
    try:
        about = json.loads((path.parent / "recording.json").read_text(encoding="utf-8"))
        stem = about["env"].replace("/", "-").split(":")[-1]
        # Of one recorded with another environment's ids, older versions list its own.
        named = about["action_values"] if "action_values" in about else about["actions"]
        ours = "action_values" in about or about.get("actions_of") is None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ()
    if not (ours and isinstance(named, list) and all(isinstance(name, str) for name in named)):
        return ()
    if not path.name.startswith(f"{stem}-") or len(set(named)) < len(named):
        return ()
    if highest >= len(named):
        raise FramepredError(
            f"actions file {path} has action id {highest}, and recording.json beside it names {len(named)} actions: "
            "restore the one that belongs to it"
        )
    return tuple(named)


def _is_word(cell: str) -> bool:
    return bool(_WORD.fullmatch(cell)) and not _is_number(cell)


def _is_integer(cell: str) -> bool:
    return cell.lstrip("+-").isdigit()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    # Python reads 1_5 as 15.
    return "_" not in cell
