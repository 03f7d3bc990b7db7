"""Means over clips with bootstrap intervals; all rows share the resamplings, so that differences are paired."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_LEAST_ERROR = 1e-10


@dataclass(frozen=True)
class Interval:
    """A value and the bounds between which the wanted share of its resamplings lies."""

    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the three numbers, rounded to 6 digits."""
        return {"value": round(self.value, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


@dataclass(frozen=True)
class Quantity:
    """A ratio of sums over clips and frames, float64 (clips, T) both; in decibels where it is an error."""

    numerator: Array
    denominator: Array
    decibels: bool = False

    def _finish(self, top: Array, bottom: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = top / bottom
        return -10 * np.log10(np.maximum(ratio, _LEAST_ERROR)) if self.decibels else ratio

    def by_horizon(self) -> list[float | None]:
        """Return the value of each frame over all clips; None where the denominator is 0."""
        values = self._finish(self.numerator.sum(0), self.denominator.sum(0))
        return [round(float(v), 6) if np.isfinite(v) else None for v in values]

    def over(self, weights: Array) -> Array:
        """Return the value for each row of clip weights (R, clips) → (R,)."""
        return self._finish(weights @ self.numerator.sum(1), weights @ self.denominator.sum(1))

    def clips(self) -> Array:
        """Return the value of each clip alone, (clips,)."""
        return self._finish(self.numerator.sum(1), self.denominator.sum(1))


def resamplings(clips: int, count: int, seed: int) -> Array:
    """Return how often each clip is drawn in each resampling with replacement, float64 (count, clips)."""
    shares = np.full(clips, 1 / clips)
    return np.random.default_rng(seed).multinomial(clips, shares, size=count).astype(np.float64)


def interval(quantity: Quantity, weights: Array, confidence: float, minus: Quantity | None = None) -> Interval | None:
    """Return the percentile interval of a quantity, or of its difference to another on the same clips.

    None where the denominator is 0 (a motion-weighted error where nothing moves).
    """
    whole = np.ones((1, weights.shape[1]))
    drawn, value = quantity.over(weights), quantity.over(whole)
    if minus is not None:
        drawn, value = drawn - minus.over(weights), value - minus.over(whole)
    drawn = drawn[np.isfinite(drawn)]
    if not (len(drawn) and np.isfinite(value[0])):
        return None
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(value[0]), float(low), float(high))
