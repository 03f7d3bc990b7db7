"""Reliability diagrams: is the likeliest token right as often as its probability says?"""

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of the likeliest token: per bin of confidence, count, mean confidence, accuracy.

    `ece` is the expected calibration error: |confidence - accuracy|, weighted by count (arXiv 1706.04599).
    """

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    ece: float

    @staticmethod
    def of(sums: Tensor) -> "Reliability":
        """From the sums of `bin_confidence`, (3, bins)."""
        count = sums[0].long()
        confidence, accuracy = (
            tuple(float(s / n) if n else None for s, n in zip(row, count, strict=True)) for row in sums[1:]
        )
        ece = float((sums[1] - sums[2]).abs().sum() / sums[0].sum().clamp(min=1))
        return Reliability(tuple(count.tolist()), confidence, accuracy, ece)


def bin_confidence(confidence: Tensor, right: Tensor) -> Tensor:
    """Confidence in (0, 1] and right (0 or 1), each (n,) → sums float64 (3, 15): count, confidence, right."""
    place = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    parts = (torch.ones_like(confidence), confidence, right)
    return torch.stack([torch.bincount(place, weights=x.double(), minlength=BINS) for x in parts])
