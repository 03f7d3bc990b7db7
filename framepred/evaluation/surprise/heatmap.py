"""Surprise as pictures: where a frame was sure and wrong and where unsure, a colour scale, and the video's curve."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.video.panels import BACKGROUND, FAINT, INK, MARGIN, draw_cells, font

# Matplotlib's inferno (CC0) at every eighth: perceptually uniform, and read as well without colour vision.
_INFERNO = torch.tensor(
    [
        (0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85),
        (227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164),
    ],
    dtype=torch.float32,
)  # fmt: skip
_SURPRISED, _UNSURE, _CURVE = (250, 90, 60), (120, 130, 250), (250, 170, 60)
_CURVE_HEIGHT, _SCALE_HEIGHT = 84, 30
WORDS = {"surprised": "sure and wrong", "unsure": "unsure", "expected": "as expected"}
"""Verdict → how it is called where it is shown."""


@dataclass(frozen=True)
class ScoredFrame:
    """What is shown of a frame: maps float32 (h, w) in nats, its surprise and its verdict; None before the context.

    `action` says in words which action the frame looks like the result of, where that was asked.
    """

    nll: Tensor | None
    entropy: Tensor | None
    surprise: float | None
    verdict: str | None
    action: str = ""


def colour(values: Tensor) -> Tensor:
    """Values in [0, 1], float (H, W) → the colours of inferno, float32 (3, H, W) in 0 to 255."""
    place = values.clamp(0, 1) * (len(_INFERNO) - 1)
    low = place.floor().long().clamp(max=len(_INFERNO) - 2)
    share = (place - low)[..., None]
    return torch.lerp(_INFERNO[low], _INFERNO[low + 1], share).permute(2, 0, 1)


def overlay(frame: Tensor, heat: Tensor) -> Tensor:
    """Draw heat in [0, 1], float (h, w), over a grey frame uint8 (3, H, W): the hotter, the less transparent."""
    enlarged = F.interpolate(heat[None, None].float(), frame.shape[1:], mode="bilinear")[0, 0]
    grey = frame.float().mean(0)
    share = 0.15 + 0.75 * enlarged.clamp(0, 1)
    return torch.lerp(grey.expand(3, -1, -1), colour(enlarged), share).round().to(torch.uint8)


def draw_surprise(
    frames: Iterable[Tensor], scored_frames: Sequence[ScoredFrame], top: float, limit: float, side: int = 256
) -> Iterator[Tensor]:
    """Yield one picture uint8 (3, H', W') a frame: *video | sure and wrong | unsure*, above the scale and the curve.

    Unsure is the entropy before the frame came; sure and wrong is by how much −log p of what came is above that: a map
    shows one or the other. `frames` are uint8 (3, H, W); `top` is the nats of the hottest colour; `limit` the highest
    surprise of an ordinary frame.
    """
    below: Tensor | None = None
    for t, (frame, scored) in enumerate(zip(frames, scored_frames, strict=False)):
        nothing = torch.zeros_like(frame)
        cells: list[tuple[str, Tensor | None, str]] = [("video", frame, f"frame {t}")]
        if scored.nll is None or scored.entropy is None:
            cells += [("sure and wrong", nothing, "nothing before it"), ("unsure", nothing, "")]
        else:
            wrong = (scored.nll - scored.entropy).clamp(min=0)
            for title, heat in (("sure and wrong", wrong), ("unsure", scored.entropy)):
                cells.append((title, overlay(frame, heat / top), f"{float(heat.mean()):.1f} nats a token"))
        panels = draw_cells(cells, side, _tint(scored.verdict))
        if below is None:
            below = _draw_curve(scored_frames, limit, panels.shape[2])
            scale = _draw_scale(top, panels.shape[2])
        yield torch.cat([panels, scale, _cursor(below, t, len(scored_frames), scored)], 1)


def _draw_scale(top: float, width: int) -> Tensor:
    """Draw which colour is how many nats a token → uint8 (3, height, width)."""
    from PIL import Image, ImageDraw

    bar = colour(torch.linspace(0, 1, width // 3).expand(12, -1)).round().to(torch.uint8)
    canvas = Image.new("RGB", (width, _SCALE_HEIGHT), BACKGROUND)
    canvas.paste(Image.fromarray(bar.permute(1, 2, 0).contiguous().numpy()), (width // 3, 8))
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 6), "colours, nats a token", FAINT, font=font(13))
    pen.text((width // 3 - 14, 6), "0", FAINT, font=font(13))
    pen.text((width // 3 + bar.shape[2] + 6, 6), f"{top:.0f} or more", FAINT, font=font(13))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def _tint(verdict: str | None) -> tuple[int, int, int]:
    return {"surprised": _SURPRISED, "unsure": _UNSURE}.get(verdict or "", FAINT)


def _draw_curve(scored_frames: Sequence[ScoredFrame], limit: float, width: int) -> Tensor:
    """Draw surprise over time, and its limit as a dashed line → uint8 (3, height, width)."""
    from PIL import Image, ImageDraw

    canvas = Image.new("RGB", (width, _CURVE_HEIGHT), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    low, high = _range(scored_frames, limit)
    at = [(_column(t, len(scored_frames), width), _row(m.surprise, low, high)) for t, m in enumerate(scored_frames)
          if m.surprise is not None]  # fmt: skip
    line = _row(limit, low, high)
    for x in range(MARGIN, width - MARGIN, 8):
        pen.line((x, line, x + 3, line), FAINT)
    pen.line(at, _CURVE, width=2)
    for (x, y), scored in zip(at, scored_frames[len(scored_frames) - len(at) :], strict=True):
        if scored.verdict in ("surprised", "unsure"):
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_tint(scored.verdict))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)


def _range(scored_frames: Sequence[ScoredFrame], limit: float) -> tuple[float, float]:
    known = [m.surprise for m in scored_frames if m.surprise is not None]
    return min(known), max(*known, limit * 1.5)


def _column(t: int, count: int, width: int) -> int:
    return MARGIN + round((width - 2 * MARGIN) * t / max(1, count - 1))


def _row(value: float, low: float, high: float) -> int:
    return round(_CURVE_HEIGHT - MARGIN - (_CURVE_HEIGHT - 32) * (value - low) / max(high - low, 1e-6))


def _cursor(curve: Tensor, t: int, count: int, scored: ScoredFrame) -> Tensor:
    """Mark the frame on the curve, with its surprise and verdict."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(curve.permute(1, 2, 0).contiguous().numpy())
    pen = ImageDraw.Draw(canvas)
    x = _column(t, count, curve.shape[2])
    pen.line((x, 22, x, _CURVE_HEIGHT - MARGIN + 2), INK)
    words = "nothing before it" if scored.surprise is None else f"surprise {scored.surprise:.1f}"
    words += f": {WORDS[scored.verdict]}" if scored.verdict else ""
    words += f"; {scored.action}" if scored.action else ""
    pen.text((MARGIN, 2), words, _tint(scored.verdict) if scored.verdict != "expected" else INK, font=font(14))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)
