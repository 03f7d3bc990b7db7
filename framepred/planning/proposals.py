"""Where candidate sequences of actions are drawn from: a distribution for each step, fitted to the best ones."""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace

_SMOOTHING = 0.1
"""What is kept of a distribution when it is fitted, so that no action is ruled out."""


class Proposal(Protocol):
    """A distribution over sequences of T actions, int64 (T,) or float32 (T, D) each."""

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        """Draw sequences, (count, T) or (count, T, D)."""
        ...

    def fit(self, best: Tensor) -> "Proposal":
        """Return the distribution of the best sequences (n, T, …)."""
        ...


@dataclass(frozen=True)
class Discrete:
    """Probabilities (T, A) of ids. A step repeats the one before it with probability `sticky`."""

    probabilities: Tensor
    sticky: float

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        drawn = torch.multinomial(self.probabilities, count, replacement=True, generator=generator).T
        return repeated(drawn, self.sticky, generator)

    def fit(self, best: Tensor) -> "Discrete":
        shares = torch.nn.functional.one_hot(best, self.probabilities.shape[1]).float().mean(0)
        # What is fitted to the best already repeats as often as is good.
        return Discrete((1 - _SMOOTHING) * shares + _SMOOTHING * self.probabilities, self.sticky / 2)


@dataclass(frozen=True)
class Continuous:
    """Means and deviations (T, D) of actions between `low` and `high` (D,); `sticky` as in `Discrete`."""

    mean: Tensor
    deviation: Tensor
    low: Tensor
    high: Tensor
    sticky: float

    def draw(self, generator: torch.Generator, count: int) -> Tensor:
        noise = torch.randn(count, *self.mean.shape, generator=generator)
        drawn = torch.minimum(torch.maximum(self.mean + self.deviation * noise, self.low), self.high)
        return repeated(drawn, self.sticky, generator)

    def fit(self, best: Tensor) -> "Continuous":
        deviation = best.std(0, correction=0)
        kept = (1 - _SMOOTHING) * deviation + _SMOOTHING * self.deviation
        return replace(self, mean=best.mean(0), deviation=kept, sticky=self.sticky / 2)


def repeated(drawn: Tensor, sticky: float, generator: torch.Generator) -> Tensor:
    """Sequences (N, T, …) in which each step takes the action before it with probability `sticky`."""
    again = torch.rand(drawn.shape[:2], generator=generator) < sticky
    again[:, 0] = False
    # The last step that was drawn anew.
    steps = torch.arange(drawn.shape[1]).expand(drawn.shape[:2]).masked_fill(again, 0).cummax(1).values
    return drawn[torch.arange(len(drawn))[:, None], steps]


def first_proposal(space: ActionSpace | None, horizon: int, sticky: float) -> Proposal:
    """Return what is proposed before anything is known; FramepredError for a run without actions."""
    if space is None:
        raise FramepredError("the run was trained without actions: a plan needs a run that was trained with them")
    if space.kind == "discrete":
        return Discrete(torch.full((horizon, space.count), 1 / space.count), sticky)
    low, high = space.bounds()
    middle, half = ((low + high) / 2).expand(horizon, -1), ((high - low) / 2).expand(horizon, -1)
    return Continuous(middle, half, low, high, sticky)
