"""How good a world is: held-out clips → its card's table and contact sheet, without a video file."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from framepred.evaluation.futures import decode_alone
from framepred.evaluation.scores import PixelScores, score_forecast, score_pixels
from framepred.tokenizer.contract import Tokenizer
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.world.rollout import predict
from framepred.world.run import Run

CONTEXT, HORIZON = 4, 16
RANGES = {"+1": slice(0, 1), "1-8": slice(0, 8), "9-16": slice(8, 16)}
SHOWN = (1, 2, 4, 8, 16)
Clip = tuple[Tensor, Tensor | None]


def cut(episodes: Iterable[Clip]) -> list[Clip]:
    """Cut the clip of context and horizon that begins each episode which is long enough."""
    end = CONTEXT + HORIZON
    return [
        (frames[:end], None if actions is None else actions[: end - 1])
        for frames, actions in episodes
        if len(frames) >= end
    ]


def predicted(run: Run, clip: Clip, temperature: float, seed: int) -> Tensor:
    """Return one future uint8 (1, T, 3, H, W) of a clip."""
    frames, actions = clip
    known = run.tokenizer.encode(frames[:CONTEXT], None if actions is None else actions[: CONTEXT - 1])
    steps = predict(run, known, actions, HORIZON, 1, run.sampling(temperature, 0, 1.0, seed), first=frames[:CONTEXT])
    return torch.cat([step.frames for step in steps])[None]


def score(run: Run, clips: Sequence[Clip], temperatures: Sequence[float]) -> dict[str, Any]:
    """Return the table: row → range of frames ahead → PSNR in dB pooled over the clips, sharpness, motion ratio.

    The run's tokenizer is one that sees pictures: its futures go on from the true ones.
    """
    rows: dict[str, list[PixelScores]] = {}
    for temperature in temperatures:
        for seed, (frames, actions) in enumerate(clips):
            made, last = predicted(run, (frames, actions), temperature, seed), frames[CONTEXT - 1]
            found = score_pixels(made, frames[CONTEXT:], last, last).over_samples()
            rows.setdefault(f"one future, T={temperature:g}", []).append(found)
    return _in_ranges(rows) | score_tokenizer(run.tokenizer, clips)


def score_tokenizer(tokenizer: Tokenizer, clips: Sequence[Clip]) -> dict[str, Any]:
    """Return the rows of `score` that need no predictor."""
    rows: dict[str, list[PixelScores]] = {}
    for frames, actions in clips:
        truth, last = frames[CONTEXT:], frames[CONTEXT - 1]
        found = score_forecast(truth[None], truth, frames[:CONTEXT], tokenizer, actions).rows
        rows.setdefault("copy last frame", []).append(found["copy_last"])
        if isinstance(tokenizer, TemporalAutoencoder):
            context, known = frames[:CONTEXT], None if actions is None else actions[: CONTEXT - 1]
            alone = decode_alone(tokenizer, tokenizer.encode(context, known), actions, HORIZON, context)[None]
            rows.setdefault("decoder alone", []).append(score_pixels(alone, truth, last, last).over_samples())
        rows.setdefault("tokenizer ceiling", []).append(found["ceiling"])
    return _in_ranges(rows)


def _in_ranges(rows: dict[str, list[PixelScores]]) -> dict[str, Any]:
    return {row: {name: _pooled(found, part) for name, part in RANGES.items()} for row, found in rows.items()}


def _pooled(found: Sequence[PixelScores], part: slice) -> dict[str, float]:
    def total(name: str) -> float:
        return float(torch.cat([getattr(scores, name)[..., part].flatten() for scores in found]).mean())

    return {
        "psnr": -10 * torch.tensor(max(total("mse"), 1e-10)).log10().item(),
        "sharpness": total("gradient") / max(total("true_gradient"), 1e-12),
        "motion": total("change") / max(total("true_change"), 1e-12),
    }


def table(rows: dict[str, Any]) -> str:
    """Return the table as Markdown: PSNR in dB / sharpness / motion ratio."""
    lines = ["| | " + " | ".join(RANGES) + " |", "|---" * (len(RANGES) + 1) + "|"]
    for row, values in rows.items():
        cells = [f"{v['psnr']:.1f} / {v['sharpness']:.2f} / {v['motion']:.2f}" for v in values.values()]
        lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def contact_sheet(run: Run, clips: Sequence[Clip], temperature: float, path: Path) -> None:
    """Write a picture of eight clips, two in a row: the truth above its prediction, at frames 1, 2, 4, 8 and 16."""
    shown = [t - 1 for t in SHOWN]
    sheets = []
    for seed, clip in enumerate(clips[:8]):
        sides = (clip[0][CONTEXT:][shown], predicted(run, clip, temperature, seed)[0][shown])
        rows = [torch.cat(list(F.pad(side, (1, 1, 1, 1))), dim=-1) for side in sides]
        sheets.append(F.pad(torch.cat(rows, dim=-2), (3, 3, 3, 3), value=255))
    sheets += [torch.zeros_like(sheets[0])] * (len(sheets) % 2)
    pairs = [torch.cat(sheets[i : i + 2], dim=-1) for i in range(0, len(sheets), 2)]
    Image.fromarray(torch.cat(pairs, dim=-2).permute(1, 2, 0).contiguous().numpy()).save(path)
