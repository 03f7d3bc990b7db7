"""Surprise as pictures: maps of −log p and of entropy over each frame, and the curve of the whole video."""

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
_CURVE_HEIGHT = 84


@dataclass(frozen=True)
class ScoredFrame:
    """What is shown of a frame: maps float32 (h, w) in nats, its surprise and its verdict; None before the context."""

    nll: Tensor | None
    entropy: Tensor | None
    surprise: float | None
    verdict: str | None


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
    """Yield one picture uint8 (3, H', W') a frame: *video | surprise | entropy*, above the curve of the whole video.

    `frames` are uint8 (3, H, W); `top` is the −log p in nats of the hottest colour; `limit` the highest
    surprise of an ordinary frame.
    """
    curve: Tensor | None = None
    for t, (frame, scored) in enumerate(zip(frames, scored_frames, strict=False)):
        nothing = torch.zeros_like(frame)
        cells: list[tuple[str, Tensor | None, str]] = [("video", frame, f"frame {t}")]
        if scored.nll is None or scored.entropy is None:
            cells += [("surprise", nothing, "no context yet"), ("unsure", nothing, "")]
        else:
            nll, entropy = float(scored.nll.mean()), float(scored.entropy.mean())
            cells += [
                (
                    "surprise: what came",
                    overlay(frame, scored.nll / top),
                    f"{nll:.1f} nats a token (brightest: {top:.0f})",
                ),
                ("unsure: what was expected", overlay(frame, scored.entropy / top), f"entropy {entropy:.1f} nats"),
            ]
        panels = draw_cells(cells, side, _tint(scored.verdict))
        if curve is None:
            curve = _draw_curve(scored_frames, limit, panels.shape[2])
        yield torch.cat([panels, _cursor(curve, t, len(scored_frames), scored)], 1)


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
    words = "no context yet" if scored.surprise is None else f"surprise {scored.surprise:.1f}: {scored.verdict}"
    pen.text((MARGIN, 2), words, _tint(scored.verdict) if scored.verdict != "expected" else INK, font=font(14))
    return torch.from_numpy(np.array(canvas)).permute(2, 0, 1)
