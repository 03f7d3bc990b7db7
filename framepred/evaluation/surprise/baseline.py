"""Baseline statistics: the features of ordinary frames, and the limits above which a frame is not ordinary."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from framepred.evaluation.surprise.features import Features


@dataclass(frozen=True)
class Statistics:
    """One feature of ordinary frames: its median, robust standard deviation (1.4826 · MAD) and upper limit."""

    median: float
    deviation: float
    limit: float

    @staticmethod
    def of(values: Sequence[float], quantile: float | None) -> "Statistics":
        """Measure ordinary frames; the limit is a quantile, or without one five deviations above the median."""
        known = torch.tensor(values, dtype=torch.float64)
        median = known.median()
        deviation = float(1.4826 * (known - median).abs().median())
        if quantile is None:
            return Statistics(float(median), deviation, float(median) + 5 * deviation)
        return Statistics(float(median), deviation, float(known.sort().values[int(quantile * (len(known) - 1))]))

    def deviations(self, value: float) -> float:
        """Return by how many deviations a value is above the median."""
        return (value - self.median) / max(self.deviation, 1e-3)


@dataclass(frozen=True)
class Baseline:
    """The statistics of each feature over so many `frames`, and the surprise that one frame in a hundred exceeds."""

    peak_nll: Statistics
    relative_nll: Statistics
    excess_nll: Statistics
    entropy: Statistics
    limit: float
    frames: int

    @staticmethod
    def of(features: Sequence[Features], held_out: bool = True) -> "Baseline":
        """Measure frames that are known to be ordinary (`held_out`), or the frames of a video that is to be judged."""
        high, most = (0.99, 0.95) if held_out else (None, None)
        peak, relative, excess, entropy = zip(*features, strict=True)
        baseline = Baseline(
            Statistics.of(peak, high),
            Statistics.of(relative, high),
            Statistics.of(excess, most),
            Statistics.of(entropy, high),
            5.0,
            len(features),
        )
        if not held_out:
            return baseline
        return replace(baseline, limit=Statistics.of([baseline.surprise(f) for f in features], high).limit)

    def surprise(self, features: Features) -> float:
        """Return how many deviations a frame is above the median: the mean of its peak's and its relative NLL's."""
        peak, relative = (
            self.peak_nll.deviations(features.peak_nll),
            self.relative_nll.deviations(features.relative_nll),
        )
        return (peak + relative) / 2

    def verdict(self, features: Features) -> str:
        """Return "surprised" (sure and wrong), "unsure" (nothing definite was expected) or "expected"."""
        above = self.surprise(features) > self.limit
        if above and features.excess_nll > self.excess_nll.limit:
            return "surprised"
        return "unsure" if above or features.entropy > self.entropy.limit else "expected"
