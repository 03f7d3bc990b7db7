"""Scores of a prediction beside what copying would score and what the tokenizer allows."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framepred.evaluation.metrics import copy_last, motion, mse, psnr_of, ssim
from framepred.tokenizer.contract import Tokenizer

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


@dataclass(frozen=True)
class Ceiling:
    """What a tokenizer gives back of T frames: errors and SSIM float64 (T,), how often it used each code (V,).

    Keys are not counted: a frame's own codes are.
    """

    mse: Tensor
    ssim: Tensor
    counts: Tensor

    @property
    def psnr(self) -> float:
        """Return the PSNR of the mean error over all frames, in dB."""
        return float(psnr_of(self.mse.mean()))

    @property
    def used(self) -> float:
        """Return the share of the codes that were used at all."""
        return float((self.counts > 0).double().mean())

    @property
    def perplexity(self) -> float:
        """Return how many codes, used alike, would say as much as these do."""
        shares = self.counts[self.counts > 0].double() / self.counts.sum()
        return float((-shares * shares.log()).sum().exp())


def measure_ceiling(tokenizer: Tokenizer, clips: Iterable[Tensor]) -> Ceiling:
    """Encode and decode clips of frames uint8 (T, 3, H, W), one or more, and see what is left of them."""
    errors, likeness = [], []
    counts = torch.zeros(tokenizer.codebook_size, dtype=torch.int64)
    for frames in clips:
        tokens = tokenizer.encode(frames)
        decoded = tokenizer.decode(tokens).cpu()
        own = tokens.flatten(1)[:, -math.prod(tokenizer.grid) :]
        counts += torch.bincount(own.flatten().cpu(), minlength=len(counts))
        errors.append(mse(decoded, frames))
        likeness.append(ssim(decoded, frames))
    return Ceiling(torch.cat(errors), torch.cat(likeness), counts)
