"""Columns of tables and arrays → actions and pictures of an episode."""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.contract import Actions, Choices
from framepred.video.resize import fit_frames

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


def image_of(value: Any, where: str) -> Tensor:
    """Turn a picture, encoded bytes or an array (H, W), (H, W, C) or (C, H, W), into uint8 (3, H, W)."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    if isinstance(value, bytes):
        try:
            value = np.asarray(Image.open(io.BytesIO(value)).convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise FramepredError(f"{where}: a picture cannot be read ({error}): mend or leave it out") from error
    elif isinstance(value, Image.Image):
        value = np.asarray(value.convert("RGB"))
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4) and array.shape[0] in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise FramepredError(
            f"{where}: a picture is an array of {array.dtype} {tuple(array.shape)}: give uint8 (H, W, 3) or PNG or JPEG"
        )
    rgb = np.broadcast_to(array[..., : 3 if array.shape[2] > 1 else 1], (*array.shape[:2], 3))
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def at_rate(timed: Iterable[tuple[float, Tensor]], fps: float, lasts: float) -> Iterator[tuple[float, Tensor]]:
    """Yield the frame that is shown at each time k / fps; the last one is shown for `lasts` seconds."""
    k, end, shown = 0, 0.0, list[Tensor]()
    for seconds, frame in timed:
        while shown and k / fps < seconds - 1e-4:
            yield k / fps, shown[0]
            k += 1
        shown, end = [frame], seconds + lasts
    while shown and k / fps < end - 1e-4:
        yield k / fps, shown[0]
        k += 1


def in_chunks(
    timed: Iterable[tuple[float, Tensor]], size: tuple[int, int], chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scale frames uint8 (3, H, W) to `size` and join them: (≤ chunk, 3, H, W) and their times float64 (≤ chunk,)."""
    held, times = list[Tensor](), list[float]()
    for seconds, frame in timed:
        times.append(seconds)
        held.append(fit_frames(frame[None], size))
        if len(held) == chunk:
            yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
            held, times = [], []
    if held:
        yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
