"""Whether actions stand where they should: the lag at which they explain best what moves."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LAGS = range(-3, 4)
_FOLDS = 5
_FEWEST = 60
# By how much of the motion's variance another lag must explain more than none, and how much at least.
_MARGIN, _LEAST = 0.1, 0.2


@dataclass(frozen=True)
class Alignment:
    """The share of motion that actions explain (R², held out) at each lag; `steps` are those it was found on.

    At lag 0, which is right, action t leads from frame t to frame t + 1. At lag -1 it is what led to frame t.
    """

    scores: dict[int, float]
    steps: int

    @property
    def best(self) -> int:
        return max(self.scores, key=lambda lag: (self.scores[lag], -abs(lag)))

    @property
    def warning(self) -> str | None:
        """Say that the actions seem to be shifted, where another lag explains clearly more; None otherwise."""
        best, zero = self.best, self.scores[0]
        if best == 0 or self.scores[best] < max(_LEAST, zero + _MARGIN):
            return None
        count = f"{abs(best)} frame{'s' if abs(best) > 1 else ''}"
        shares = f"{self.scores[best]:.0%} of the motion, {zero:.0%} as it is"
        if best < 0:
            return (
                f"actions seem to be written {count} late: they explain best what moved {count} earlier ({shares}); "
                "row t must be the action taken after frame t"
            )
        return (
            f"actions seem to be written {count} early: they explain best what moves {count} later ({shares}); "
            "row t must be the action taken after frame t, unless what moves answers late"
        )


def align(episodes: Sequence[tuple[Tensor, Tensor]]) -> Alignment | None:
    """Compare lags over episodes of frames uint8 (T, 3, H, W) and actions (≥ T - 1), discrete or continuous.

    None where there are too few steps to tell.
    """
    motions = [motion(frames) for frames, _ in episodes]
    best: dict[int, float] = {}
    steps = 0
    for coded in _codings([actions for _, actions in episodes]):
        pairs = list(zip(coded, motions, strict=True))
        steps = sum(max(0, len(m) - 2 * LAGS[-1] - 1) for m in motions)
        if steps < _FEWEST:
            return None
        scores = {lag: _explained(*_shifted(pairs, lag)) for lag in LAGS}
        if not best or max(scores.values()) > max(best.values()):
            best = scores
    return Alignment(best, steps)


def motion(frames: Tensor) -> Tensor:
    """Frames uint8 (T, 3, H, W) → (T - 1, 34): the shift of the whole picture, and how 4 x 4 parts change."""
    grey = F.adaptive_avg_pool2d(frames.float().mean(1, keepdim=True), 32) / 255
    change = grey[1:] - grey[:-1]
    middle = (grey[1:] + grey[:-1]) / 2
    down, right = (torch.gradient(middle, dim=d)[0] for d in (2, 3))
    # The shift that explains the change best, by least squares: Lucas and Kanade's, of the whole picture.
    a, b, c = ((x * y).sum((1, 2, 3)) for x, y in ((down, down), (down, right), (right, right)))
    p, q = ((x * change).sum((1, 2, 3)) for x in (down, right))
    over = a * c - b * b + 1e-6
    shift = torch.stack([(b * q - c * p) / over, (b * p - a * q) / over], 1)
    parts = [F.adaptive_avg_pool2d(x, 4).flatten(1) for x in (change, change.abs())]
    return torch.cat([shift.clamp(-8, 8), *parts], 1)


def _codings(actions: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return actions as numbers (T, D): one-hot, or as they are and as their changes, where they are positions."""
    if not actions[0].is_floating_point():
        count = max(int(a.max()) + 1 for a in actions if len(a))
        return [[F.one_hot(a, count).float() for a in actions]]
    return [[a.float() for a in actions], [torch.diff(a.float(), dim=0, prepend=a[:1].float()) for a in actions]]


def _shifted(pairs: Sequence[tuple[Tensor, Tensor]], lag: int) -> tuple[Tensor, Tensor]:
    """Return the actions of the same steps whatever the lag, and the motion `lag` steps after each."""
    edge = LAGS[-1]
    taken, moved = [], []
    for actions, motions in pairs:
        # The first action has no change.
        steps = range(edge + 1, len(motions) - edge)
        taken.append(actions[steps.start : steps.stop])
        moved.append(motions[steps.start + lag : steps.stop + lag] if steps else motions[:0])
    return torch.cat(taken), torch.cat(moved)


def _explained(actions: Tensor, motions: Tensor) -> float:
    """Return the R² of the four kinds of motion that ridge regression predicts best on blocks that it did not see."""
    x = torch.cat([(actions - actions.mean(0)) / (actions.std(0) + 1e-6), torch.ones(len(actions), 1)], 1).double()
    y = ((motions - motions.mean(0)) / (motions.std(0) + 1e-6)).double()
    missed, total = torch.zeros(y.shape[1]), torch.zeros(y.shape[1])
    for held in torch.arange(len(x)).chunk(_FOLDS):
        kept = torch.ones(len(x), dtype=torch.bool)
        kept[held] = False
        gram = x[kept].T @ x[kept] + 1e-2 * len(x) * torch.eye(x.shape[1])
        guess = x[held] @ torch.linalg.solve(gram, x[kept].T @ y[kept])
        missed += (y[held] - guess).square().sum(0)
        total += (y[held] - y[kept].mean(0)).square().sum(0)
    # What never changes is not explained.
    shares = torch.where(total > 1e-3 * len(x), 1 - missed / total.clamp(1e-9), 0.0)
    return float(shares.clamp(0).topk(4).values.mean())
