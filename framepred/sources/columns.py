"""Columns of tables and arrays → actions of an episode."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from framepred.errors import FramepredError
from framepred.sources.contract import Actions, Choices

_MAX_ID = 65_535


def parse_columns(choices: Choices, roles: Sequence[str], source: str) -> dict[str, str]:
    """Read the choice `columns`: `frames=image,actions=action` → what each role is in this source.

    Raises FramepredError for a role that is none of `roles`.
    """
    found: dict[str, str] = {}
    for part in filter(None, choices.get("columns", "").split(",")):
        role, equals, column = (text.strip() for text in part.partition("="))
        if not (equals and column and role in roles):
            raise FramepredError(
                f"columns {part!r} of {source} is not allowed: give ROLE=COLUMN, the roles are {', '.join(roles)}"
            )
        found[role] = column
    return found


def as_actions(values: NDArray[Any], names: Iterable[str], where: str) -> Actions:
    """Turn one row a step into actions: whole numbers alone are discrete, int64 (T,); the rest float32 (T, D).

    `names` are used where there is one for each column, and the columns are numbered where not.
    """
    if values.dtype.kind not in "biuf":
        raise FramepredError(f"{where} has actions of {values.dtype}: give numbers")
    rows = values.reshape(len(values), -1)
    if rows.shape[1] == 1 and rows.dtype.kind in "biu":
        ids = torch.from_numpy(rows[:, 0].astype(np.int64))
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= _MAX_ID:
            bad = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise FramepredError(f"{where} has the action {bad}, which is not allowed: ids are 0 to {_MAX_ID}")
        return ids, (next(iter(names), "action"),)
    numbers = torch.from_numpy(rows.astype(np.float32))
    if not bool(numbers.isfinite().all()):
        step = int((~numbers.isfinite()).any(1).nonzero()[0])
        raise FramepredError(f"{where} has an action that is no finite number at step {step}: mend or leave it out")
    given = tuple(names)
    if len(set(given)) != rows.shape[1] or len(given) != rows.shape[1]:
        given = tuple(f"action_{i}" for i in range(rows.shape[1]))
    return numbers, given
