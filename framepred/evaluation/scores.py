"""The one scorer: predicted frames beside the true ones → every score of a picture, frame by frame.

`framepred rollout` and `framepred eval` both score by it, so that the same clip has the same numbers in both.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from framepred.evaluation.bootstrap import Array, Quantity
from framepred.evaluation.metrics import change, copy_last, motion, moving_error, mse, psnr_of, ssim
from framepred.tokenizer.contract import Tokenizer
from framepred.video.gradient import gradient

FROZEN_BELOW = 0.5 / 255
"""The mean change, half a grey level, up to which a frame counts as the one before it shown again."""

MEASURES: dict[str, tuple[str, str | None, bool]] = {
    "psnr": ("mse", None, True),
    "ssim": ("ssim", None, False),
    "motion_psnr": ("moving_error", "true_change", True),
    "lpips": ("lpips", None, False),
    "sharpness": ("gradient", "true_gradient", False),
    "motion_ratio": ("change", "true_change", False),
    "frozen": ("frozen", None, False),
}
"""Measure → (numerator, denominator or None for 1, whether it is in decibels): ratios of sums of `PixelScores`."""

WITHOUT_WEIGHTS = tuple(measure for measure in MEASURES if measure != "lpips")


@dataclass(frozen=True)
class PixelScores:
    """S futures of T frames beside the truth: float64 (S, T), or (T,) of the truth and after `over_samples`.

    All values are of pixels in [0, 1]. `moving_error` is weighted by the motion of the truth.
    `gradient` is the mean image gradient, `change` the mean change from the frame before; the fields `true_…` are
    those of the truth. `frozen` is 1 where a frame repeats the one before it. `lpips` needs weights.
    """

    mse: Tensor
    psnr: Tensor
    ssim: Tensor
    moving_error: Tensor
    gradient: Tensor
    change: Tensor
    frozen: Tensor
    true_gradient: Tensor
    true_change: Tensor
    lpips: Tensor | None = None

    def over_samples(self, best: bool = False) -> "PixelScores":
        """Average over the samples; with `best`, take each error and similarity of its best sample instead.

        The best sample is the one with the best mean over its frames.
        """
        found: dict[str, Tensor] = {}
        for name, values in self.tensors().items():
            if values.ndim == 2:
                found[name] = values.mean(0)
            if best and name in ("mse", "psnr", "ssim", "moving_error", "lpips"):
                means = values.mean(1)
                found[name] = values[int(means.argmax() if name in ("psnr", "ssim") else means.argmin())]
        return replace(self, **found)

    def after(self, context: "PixelScores") -> "PixelScores":
        """Prepend the errors and similarities of the context, which is one sample."""
        names = [name for name in ("mse", "psnr", "ssim", "lpips") if name in self.tensors()]
        pairs = {name: (getattr(context, name), getattr(self, name)) for name in names}
        joined = {name: torch.cat([given.expand(len(own), -1), own], 1) for name, (given, own) in pairs.items()}
        return replace(self, **joined)

    def tensors(self) -> dict[str, Tensor]:
        """Return the scores that there are, by name."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def quantity(self, measure: str) -> Quantity:
        """Return a measure of this one clip, after `over_samples`."""
        top, bottom, decibels = MEASURES[measure]
        numerator = _row(getattr(self, top))
        denominator = _row(torch.ones_like(self.mse) if bottom is None else getattr(self, bottom))
        return Quantity(numerator, denominator, decibels)


def _row(values: Tensor) -> Array:
    return values.numpy()[None]


def score_pixels(
    prediction: Tensor, truth: Tensor, before: Tensor, true_before: Tensor,
    lpips: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> PixelScores:  # fmt: skip
    """Score futures uint8 (S, T, 3, H, W) against the truth (T, 3, H, W).

    `before` (3, H, W) is the frame that the futures go on from, `true_before` that of the truth; `lpips` takes
    two (T, 3, H, W) to (T,).
    """
    error, changes = mse(prediction, truth), change(prediction, before)
    return PixelScores(
        mse=error,
        psnr=psnr_of(error),
        ssim=torch.stack([ssim(sample, truth) for sample in prediction]),
        moving_error=moving_error(prediction, truth, true_before),
        gradient=gradient(prediction),
        change=changes,
        frozen=(changes <= FROZEN_BELOW).double(),
        true_gradient=gradient(truth),
        true_change=change(truth, true_before),
        lpips=torch.stack([lpips(sample, truth) for sample in prediction]) if lpips else None,
    )


@dataclass(frozen=True)
class ForecastScores:
    """Scores of one prediction by row, averaged over samples: the model, copying and the tokenizer's ceiling.

    `motion` is the mean change of the true frames; `decoded` uint8 (C + T, 3, H, W) are context and truth as the
    tokenizer gives them back.
    """

    rows: dict[str, PixelScores]
    motion: float
    decoded: Tensor

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON: of each measure and row a list of one value a frame, and its mean over the frames."""
        result: dict[str, Any] = {"mse": {row: scores.mse.tolist() for row, scores in self.rows.items()}}
        means: dict[str, dict[str, float | None]] = {row: {} for row in self.rows}
        for measure in WITHOUT_WEIGHTS:
            found = {row: scores.quantity(measure) for row, scores in self.rows.items()}
            result[measure] = {row: quantity.by_horizon() for row, quantity in found.items()}
            for row, quantity in found.items():
                value = float(quantity.clips()[0])
                means[row][measure] = round(value, 6) if math.isfinite(value) else None
        return result | {"motion": self.motion, "mean": means}


def score_forecast(
    frames: Tensor, truth: Tensor, context: Tensor, tokenizer: Tokenizer, actions: Tensor | None = None
) -> ForecastScores:
    """Score predicted frames uint8 (S, T, 3, H, W) against the truth (T, 3, H, W) after `context` (C, 3, H, W).

    `actions` (≥ C + T - 1) are what the futures were given, or None. The ceiling is the truth encoded and decoded,
    after the context. Squared errors and SSIM are averaged over the samples, so PSNR is that of the expected error of
    one future.
    """
    count, last = len(context), context[-1]
    decoded = tokenizer.decode(tokenizer.encode(torch.cat([context, truth]), actions), actions, context[0]).cpu()
    shown = {
        # A tokenizer that sees pictures draws the first frame from the true ones.
        "model": (frames, last if tokenizer.past else decoded[count - 1]),
        "copy_last": (copy_last(context, len(truth))[None], last),
        "ceiling": (decoded[None, count:], decoded[count - 1]),
    }
    rows = {row: score_pixels(f, truth, before, last).over_samples() for row, (f, before) in shown.items()}
    return ForecastScores(rows, motion(torch.cat([context[-1:], truth])), decoded)
