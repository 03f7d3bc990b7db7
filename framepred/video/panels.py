"""Labelled pictures for people: truth beside prediction, PSNR below."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

MARGIN, TITLE, FOOT = 8, 22, 22
BACKGROUND, INK, FAINT = (24, 24, 28), (235, 235, 235), (140, 140, 150)
_CONTEXT, _PREDICTED = (90, 160, 250), (250, 170, 60)
Cell = tuple[str, Tensor | None, str]
"""A title, a picture uint8 (3, H, W) or None for an empty place, and the words below."""


@functools.cache
def font(size: int) -> Any:
    """The face that pictures are labelled in."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def draw_panels(
    context: Tensor, predicted: dict[str, Tensor], truth: Tensor, psnr: dict[str, list[float]],
    ceiling: Tensor | None = None, side: int = 192,
) -> Iterator[Tensor]:  # fmt: skip
    """Yield one picture uint8 (3, H', W') a moment: *truth | prediction … | tokenizer ceiling*, PSNR below.

    `context` (C, 3, H, W) is shown first, in blue frames, where nothing is predicted yet; what is `predicted`, frames
    (T, 3, H, W) by title, in orange; `truth` (≤ T, 3, H, W) may end early; `psnr` is by title too, of each frame where
    there is truth. `ceiling` (C + the truth's, 3, H, W) is context and truth as the tokenizer gives them back.
    """
    count = len(context)
    for t in range(count + len(next(iter(predicted.values())))):
        ahead, known, when = t - count, t < count + len(truth), _when(t - count)
        true = context[t] if ahead < 0 else truth[ahead] if known else None
        cells: list[Cell] = [("truth", true, when if known else "the video has ended")]
        for title, frames in predicted.items():
            if ahead < 0:
                cells.append((title, None, "the context is given"))
            else:
                cells.append((title, frames[ahead], f"{psnr[title][ahead]:.1f} dB" if known else when))
        if ceiling is not None:
            cells.append(("tokenizer ceiling", ceiling[t] if known else None, "encoded and decoded" if known else ""))
        yield draw_cells(cells, side, _CONTEXT if ahead < 0 else _PREDICTED)


def _when(ahead: int) -> str:
    """Say which frame this is: those of the context count up to 0, the predicted ones from +1."""
    return f"frame +{ahead + 1}" if ahead >= 0 else f"context {ahead + 1}" if ahead < -1 else "context, last"


def draw_cells(cells: Sequence[Cell], side: int, colour: tuple[int, int, int]) -> Tensor:
    """Draw (title, picture uint8 (3, H, W), foot) side by side, enlarged to about `side` → uint8 (3, H', W')."""
    from PIL import Image, ImageDraw

    frame = next(cell[1] for cell in cells if cell[1] is not None)
    scale = max(1, round(side / min(frame.shape[1:])))
    height, width = frame.shape[1] * scale, frame.shape[2] * scale
    columns = min(len(cells), 5)
    lines = -(-len(cells) // columns)
    cell_w, cell_h = width + 2 * MARGIN, height + TITLE + FOOT + MARGIN
    canvas = Image.new(
        "RGB", (columns * cell_w + columns * cell_w % 2, lines * cell_h + lines * cell_h % 2), BACKGROUND
    )
    pen = ImageDraw.Draw(canvas)
    for i, (title, picture, foot) in enumerate(cells):
        x, y = i % columns * cell_w + MARGIN, i // columns * cell_h + TITLE
        pen.text((x, y - 18), title, INK, font=font(14))
        box = (x - 2, y - 2, x + width + 1, y + height + 1)
        pen.rectangle(box, outline=FAINT if title == "truth" else colour, width=2)
        if picture is not None:
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y))
        pen.text((x, y + height + 4), foot, FAINT, font=font(13))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def draw_moments(context: Tensor, rows: dict[str, Tensor], side: int = 160) -> Iterator[Tensor]:
    """Yield one picture uint8 (3, H', W') a moment: the rows' frames (T, 3, H, W) side by side.

    The context comes first, in the place of the first row alone: the others begin after it.
    """
    for t, frame in enumerate(context):
        cells = [(name, None if i else frame, "" if i else _when(t - len(context))) for i, name in enumerate(rows)]
        yield draw_cells(cells, side, _CONTEXT)
    for t in range(len(next(iter(rows.values())))):
        yield draw_cells([(name, frames[t], f"frame +{t + 1}") for name, frames in rows.items()], side, _PREDICTED)


def draw_filmstrip(context: Tensor | None, rows: dict[str, Tensor], side: int = 72, most: int = 10) -> Tensor:
    """Draw rows of frames (T, 3, H, W) over each other, the last context frame left of the first: uint8 (3, H', W').

    Without a context the frames are numbered from 1. Of more than `most` frames, as many are shown, evenly spread.
    """
    from PIL import Image, ImageDraw

    frames = next(iter(rows.values()))
    shown = sorted({round(i * (len(frames) - 1) / (most - 1)) for i in range(most)} if len(frames) > most else
                   range(len(frames)))  # fmt: skip
    scale = side / min(frames.shape[-2:])
    height, width, margin = round(frames.shape[-2] * scale), round(frames.shape[-1] * scale), 104
    # The context stands in the first row alone: the others are no picture of what was given.
    columns = [] if context is None else [("context", [context[-1]])]
    columns += [(f"{'' if context is None else '+'}{t + 1}", [future[t] for future in rows.values()]) for t in shown]
    canvas = Image.new("RGB", (margin + len(columns) * (width + 3) + 5, TITLE + len(rows) * (height + 3)), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    for row, name in enumerate(rows):
        pen.text((6, TITLE + row * (height + 3) + height // 2 - 8), name, INK, font=font(13))
    for column, (label, pictures) in enumerate(columns):
        x = margin + column * (width + 3) + (5 if column else 0)
        pen.text((x + 2, 4), label, _CONTEXT if label == "context" else _PREDICTED, font=font(12))
        for row, picture in enumerate(pictures):
            y = TITLE + row * (height + 3)
            image = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, y))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)
