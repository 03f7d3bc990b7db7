"""Action files: `NAME.actions.csv` beside `NAME.mp4`, row t between frame t and frame t+1."""

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from framepred.errors import FramepredError


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
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise FramepredError(f"actions file {path} is not CSV text ({error})") from error
    if len(rows) < 2:
        raise FramepredError(f"actions file {path} has no rows: give a header row and one row a frame")
    names = tuple(cell.strip() for cell in rows[0])
    if all(_is_number(name) for name in names):
        raise FramepredError(f"actions file {path} has no header row: the first row must name the actions")
    values: list[list[float]] = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(names):
            raise FramepredError(
                f"actions file {path}, line {number}: {len(row)} columns where the header has {len(names)}"
            )
        for cell in row:
            if not _is_number(cell) or not math.isfinite(float(cell)):
                raise FramepredError(
                    f"actions file {path}, line {number}: {cell!r} is not a finite number; mend or remove that row"
                )
        values.append([float(cell) for cell in row])
    if len(names) == 1 and all(_is_integer(row[0]) for row in rows[1:]):
        actions = torch.tensor([int(row[0]) for row in rows[1:]], dtype=torch.int64)
        if int(actions.min()) < 0:
            raise FramepredError(f"actions file {path}: action id {int(actions.min())} is negative; ids start at 0")
        return actions, names
    return torch.tensor(values, dtype=torch.float32), names


def write_actions(path: str | os.PathLike[str], actions: Tensor, names: Sequence[str]) -> None:
    """Write actions, int64 (T,) or float (T, D), as an action file."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows([[a] for a in actions.tolist()] if actions.ndim == 1 else actions.tolist())
    os.replace(partial, path)


def _is_integer(cell: str) -> bool:
    return cell.strip().lstrip("+-").isdigit()


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
