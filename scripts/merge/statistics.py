"""Intervals over clips and seeds, and how many clips an effect takes to be seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from framepred.evaluation.bootstrap import Array, Quantity, resamplings

NORMAL = 1.959964
POWER = 0.841621
"""The quantile of 0.8: an effect of the size looked for is to be seen in 80 of 100 experiments."""
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""The 0.975 quantiles of Student's t for 1 to 9 degrees of freedom: 2 to 10 seeds."""
RESAMPLINGS, CONFIDENCE, SEED = 2000, 0.95, 0


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds: its 95% bounds over items (clips, captions, files), and over seeds where there are several.

    `spread` is the standard deviation of an item: that of the mean over resampled items, times the root of their
    number; None for one item.
    """

    value: float
    items: tuple[float, float]
    seeds: tuple[float, float] | None
    count: int
    spread: float | None

    def bounds(self) -> tuple[float, float]:
        """Return the wider of both intervals' bounds on each side."""
        low, high = zip(self.items, *([self.seeds] if self.seeds else []), strict=True)
        return min(low), max(high)


def seed_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95% t-interval of the mean of 2 to 10 seeds' values; None for one."""
    if len(values) < 2:
        return None
    half = STUDENT[len(values) - 2] * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def estimate(
    ours: Sequence[Quantity], theirs: Sequence[Quantity] | None = None, distance_to_1: bool = False
) -> Estimate:
    """Estimate a measure of an arm, a quantity each seed, or its difference to that of another on the same items.

    With `distance_to_1` the measure is |quantity - 1|: a ratio of 0.5 counts as 0.5, one of 1.6 as 0.6.
    """
    count = len(ours[0].numerator)
    weights = np.concatenate([np.ones((1, count)), resamplings(count, RESAMPLINGS, SEED)])

    def of(quantity: Quantity) -> Array:
        values = quantity.over(weights)
        return np.abs(values - 1) if distance_to_1 else values

    runs = [of(quantity) for quantity in ours]
    if theirs is not None:
        runs = [run - of(other) for run, other in zip(runs, theirs, strict=True)]
    mean = np.mean(runs, 0)
    known = mean[1:][np.isfinite(mean[1:])]
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    spread = float(np.std(known, ddof=1)) * math.sqrt(count) if count > 1 else None
    values = [float(run[0]) for run in runs]
    return Estimate(float(mean[0]), (float(low), float(high)), seed_interval(values), count, spread)


def needed(spread: float, effect: float) -> int:
    """Return how many items show a mean difference of `effect` to 95% in 80 of 100 experiments.

    `spread` is the standard deviation of an item's difference.
    """
    return math.ceil(((NORMAL + POWER) * spread / effect) ** 2)


def half_width(spread: float, count: int) -> float:
    """Return half of the 95% interval of a mean of `count` items."""
    return NORMAL * spread / math.sqrt(count)


def share_spread(ours: float, theirs: float) -> float:
    """Return the standard deviation of a difference of two right-or-wrong answers that know nothing of each other."""
    return math.sqrt(ours * (1 - ours) + theirs * (1 - theirs))
