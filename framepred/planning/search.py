"""Search for a sequence of actions: random shooting, and the cross-entropy method."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from framepred.config.constraints import allow, at_least, below_one, check
from framepred.planning.proposals import first_proposal
from framepred.sequence.actions import ActionSpace

Judge = Callable[[Tensor], Tensor]
"""Sequences of actions (N, T) or (N, T, D) → how far each is from the goal after each step, float32 (N, T)."""
MOST = 1024


def _count(default: int, most: int = MOST) -> int:
    return allow(default, (lambda n: 1 <= n <= most, f"a whole number from 1 to {most}"))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Search:
    """How a plan is looked for, and how it is followed.

    Each round draws `candidates` sequences of `horizon` actions and judges them. One round is random shooting; more are
    the cross-entropy method: the next round draws from what fits the `elites`, a share of the candidates. An action
    repeats the one before it with probability `sticky` in the first round. `distance` is measured in pixels or in the
    tokenizer's features. In an environment, the first `replan` actions are taken before the next search. The
    imagination draws tokens at a `temperature`, 0 for the likeliest.
    """

    horizon: int = _count(8)
    candidates: int = _count(16)
    rounds: int = _count(2, 100)
    elites: float = allow(0.25, (lambda share: 0 < share <= 1, "above 0, at most 1"))
    sticky: float = below_one(0.75)
    distance: Literal["pixels", "features"] = "pixels"
    replan: int = _count(4)
    temperature: float = at_least(0, 0.0)
    seed: int = at_least(0, 0)

    def __post_init__(self) -> None:
        check(self, "plan: ")


@dataclass(frozen=True)
class Plan:
    """Actions int64 (L,) or float32 (L, D), and how far from the goal each is expected to lead, float32 (L,)."""

    actions: Tensor
    distances: Tensor


def find_plan(judge: Judge, space: ActionSpace | None, search: Search, generator: torch.Generator) -> Plan:
    """Return the sequence that comes nearest to the goal, up to its nearest step.

    Of equally near ones it is the first candidate that was drawn, and its longest sequence.
    """
    proposal = first_proposal(space, search.horizon, search.sticky)
    found: Plan | None = None
    for _ in range(search.rounds):
        actions = proposal.draw(generator, search.candidates)
        distances = judge(actions)
        order = distances.amin(1).argsort(stable=True)
        nearest = distances[order[0]]
        length = search.horizon - int(nearest.flip(0).argmin())
        if found is None or float(nearest.min()) < float(found.distances[-1]):
            found = Plan(actions[order[0], :length], nearest[:length])
        proposal = proposal.fit(actions[order[: max(1, round(search.elites * search.candidates))]])
    assert found is not None
    return found
