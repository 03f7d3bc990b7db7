"""Columns of tables and arrays → actions of an episode."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.contract import Actions, Choices

_MAX_ID = 65_535
_ASSUMED_FPS = 10.0


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
    rows, given = values.reshape(len(values), -1), names if isinstance(names, tuple) else tuple(names)
    if rows.shape[1] == 1 and rows.dtype.kind in "biu":
        ids = torch.from_numpy(rows[:, 0].astype(np.int64))
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= _MAX_ID:
            bad = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
            raise FramepredError(f"{where} has the action {bad}, which is not allowed: ids are 0 to {_MAX_ID}")
        return ids, given if len(given) == 1 else ("action",)
    numbers = torch.from_numpy(rows.astype(np.float32))
    if not bool(numbers.isfinite().all()):
        step = int((~numbers.isfinite()).any(1).nonzero()[0])
        raise FramepredError(f"{where} has an action that is no finite number at step {step}: mend or leave it out")
    if len(set(given)) != rows.shape[1] or len(given) != rows.shape[1]:
        given = tuple(f"action_{i}" for i in range(rows.shape[1]))
    return numbers, given


def said_rate(given: str | None, source: str) -> float:
    """Return the choice `fps`, frames a second of a source that does not say it; without, one is assumed and said."""
    try:
        fps = _ASSUMED_FPS if given is None else float(given)
    except ValueError:
        fps = 0.0
    if not 0 < fps <= 1000:
        raise FramepredError(f"fps {given!r} of {source} is not allowed: give a number of frames a second, 0 to 1000")
    if given is None:
        warnings.warn(
            FramepredWarning(
                f"{source} does not say how many frames it has a second: {fps:g} are assumed; ?fps=N says"
            ),
            stacklevel=3,
        )
    return fps
