"""Action files: `NAME.actions.csv` beside `NAME.mp4`, row t between frame t and frame t+1."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import writing

# Each id is a row of the model's vocabulary.
_MAX_ID = 65_535
_MAX_FLOAT = torch.finfo(torch.float32).max


def actions_path(video: str | os.PathLike[str]) -> Path:
    """Return where a video's action file is looked for: NAME.mp4 → NAME.actions.csv."""
    return Path(video).with_suffix(".actions.csv")


def read_actions(path: str | os.PathLike[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Read a header of action names and one row a frame → (actions, names).

    One column of integers is discrete: int64 (T,). Anything else is continuous: float32 (T, D).
    """
    path = Path(path)
    if not path.is_file():
        raise FramepredError(f"actions file {path} does not exist: give a CSV with a header row and one row a frame")
    try:
        # Spreadsheets begin their files with a byte-order mark.
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FramepredError(f"actions file {path} is not CSV text ({error})") from error
    if len(rows) < 2:
        raise FramepredError(f"actions file {path} has no rows: give a header row and one row a frame")
    names = tuple(cell.strip() for cell in rows[0][1])
    if all(_is_number(name) for name in names):
        raise FramepredError(f"actions file {path} has no header row: the first row must name the actions")
    values: list[list[float]] = []
    for number, row in rows[1:]:
        if len(row) != len(names):
            raise FramepredError(
                f"actions file {path}, line {number}: {len(row)} columns where the header has {len(names)}"
            )
        for cell in row:
            if not _is_number(cell) or not abs(float(cell)) <= _MAX_FLOAT:
                raise FramepredError(
                    f"actions file {path}, line {number}: {cell!r} is not a finite number; mend or remove that row"
                )
        values.append([float(cell) for cell in row])
    if len(names) == 1 and all(_is_integer(row[0]) for _, row in rows[1:]):
        ids = [int(row[0]) for _, row in rows[1:]]
        if min(ids) < 0 or max(ids) > _MAX_ID:
            bad = min(ids) if min(ids) < 0 else max(ids)
            raise FramepredError(f"actions file {path}: action id {bad} is not allowed; ids are 0 to {_MAX_ID}")
        return torch.tensor(ids, dtype=torch.int64), names
    return torch.tensor(values, dtype=torch.float32), names


def write_actions(path: str | os.PathLike[str], actions: Tensor, names: Sequence[str]) -> None:
    """Write actions, int64 (T,) or float (T, D), as an action file."""
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([[a] for a in actions.tolist()] if actions.ndim == 1 else actions.tolist())


def _is_integer(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdigit()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
