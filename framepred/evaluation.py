"""Scores of a prediction beside what copying would score and what the tokenizer allows."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framepred.metrics import copy_last, motion, mse, psnr_of, ssim
from framepred.tokenizer.base import Tokenizer

ROWS = ("model", "copy_last", "ceiling")


@dataclass(frozen=True)
class Scores:
    """Per predicted frame float64 (T,), by row: the model (mean over its samples), copying, the ceiling."""

    mse: dict[str, Tensor]
    ssim: dict[str, Tensor]
    motion: float

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON: lists of one value a frame, and their means."""
        errors = self.mse
        result: dict[str, Any] = {
            "mse": {row: errors[row].tolist() for row in ROWS},
            "psnr": {row: psnr_of(errors[row]).tolist() for row in ROWS},
            "ssim": {row: self.ssim[row].tolist() for row in ROWS},
            "motion": self.motion,
        }
        result["mean"] = {
            row: {
                "psnr": float(psnr_of(errors[row].mean())),
                "ssim": float(self.ssim[row].mean()),
            }
            for row in ROWS
        }
        return result


def score(frames: Tensor, truth: Tensor, context: Tensor, tokenizer: Tokenizer) -> Scores:
    """Score predicted frames uint8 (S, T, 3, H, W) against the truth (T, 3, H, W) after `context`.

    The ceiling is the truth encoded and decoded, after the context. A sample's squared errors and SSIM are averaged
    over samples, so PSNR is of the mean error: what one future drawn at random is off by.
    """
    copied = copy_last(context, len(truth))
    ceiling = tokenizer.decode(tokenizer.encode(torch.cat([context, truth])))[len(context) :].cpu()
    return Scores(
        mse={"model": mse(frames, truth).mean(0), "copy_last": mse(copied, truth), "ceiling": mse(ceiling, truth)},
        ssim={
            "model": torch.stack([ssim(sample, truth) for sample in frames]).mean(0),
            "copy_last": ssim(copied, truth),
            "ceiling": ssim(ceiling, truth),
        },
        motion=motion(torch.cat([context[-1:], truth])),
    )
