"""Model-predictive control: search, take the first actions, see what they led to, and search again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.planning.judges import World
from framepred.planning.search import Plan, Search, find_plan
from framepred.sequence.actions import ActionSpace


@dataclass(frozen=True)
class Step:
    """An action that was taken, the frame uint8 (3, H, W) it led to, how far from the goal that was expected to be.

    `plans` counts the searches so far. `reached` says whether the goal is.
    """

    action: Tensor
    frame: Tensor
    expected: float
    plans: int
    reached: bool


def follow_plans(
    world: World,
    step: Callable[[Tensor], Tensor | None],
    reached: Callable[[Tensor], bool],
    space: ActionSpace | None,
    search: Search,
    budget: int,
) -> Iterator[Step]:
    """Plan, `step` and plan again until the goal is `reached`, the budget of steps is spent or the episode ends.

    `step` takes an action and returns the frame that it led to, None at an end.
    """
    generator, taken, plans = torch.Generator().manual_seed(search.seed), 0, 0
    while taken < budget:
        plan: Plan = find_plan(world.judge, space, search, generator)
        plans += 1
        for action, expected in list(zip(plan.actions, plan.distances.tolist(), strict=True))[: search.replan]:
            frame = step(action)
            if frame is None:
                return
            taken += 1
            world.observe(action, frame)
            done = reached(frame)
            yield Step(action, frame, expected, plans, done)
            if done or taken == budget:
                return
