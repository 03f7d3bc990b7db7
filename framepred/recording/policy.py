"""Who plays while an environment is recorded: the contract, the policies built in, and those installed."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

import numpy as np
from torch import Tensor

from framepred.errors import FramepredError
from framepred.recording.environment import Environment
from framepred.world.run import Run

Policy = Callable[[Sequence[Tensor], Sequence[Any]], Any]
"""(frames, actions) → the next action, of the environment's own space, in one episode.

The T frames so far are uint8 (3, H, W), the T - 1 actions between them are what the policy returned.
"""

ENTRY_POINTS = "framepred.policies"
POLICIES = {
    "sticky": "framepred.recording.policy:sticky",
    "random": "framepred.recording.policy:uniform",
    "curious": "framepred.recording.curious:curious",
}
"""Name → the module and function that makes a policy, imported when it is asked for."""


@dataclass(frozen=True)
class Setup:
    """What a policy is made for: the environment and the seed of one episode, which decide the episode.

    `ids` are the discrete actions that may be taken, None for all of the action space. `sticky` is a probability;
    `run` is the one that the policy asks, None where none was given.
    """

    env: Environment
    seed: int
    ids: tuple[int, ...] | None = None
    sticky: float = 0.75
    run: Run | None = None


PolicyMaker = Callable[[Setup], Policy]
"""Makes a policy for one episode. The environment's action space is seeded before its first frame."""


def sticky(setup: Setup) -> Policy:
    """Repeat the last action with probability `sticky`, else draw one uniformly."""
    generator, space = np.random.default_rng(setup.seed), setup.env.action_space

    def act(frames: Sequence[Tensor], actions: Sequence[Any]) -> Any:
        if actions and generator.random() < setup.sticky:
            return actions[-1]
        return space.sample() if setup.ids is None else int(generator.choice(setup.ids))

    return act


def uniform(setup: Setup) -> Policy:
    """Draw every action uniformly."""
    return sticky(replace(setup, sticky=0.0))


def find_policy(name: str) -> PolicyMaker:
    """Return what makes the policies of a name: built in, or an entry point of the group `framepred.policies`.

    Raises FramepredError for an unknown name, and for one that cannot be loaded.
    """
    if name in POLICIES:
        module, _, function = POLICIES[name].partition(":")
        return getattr(importlib.import_module(module), function)
    added = entry_points(group=ENTRY_POINTS)
    if name not in added.names:
        raise FramepredError(f"policy {name!r} is unknown: give one of {', '.join([*POLICIES, *sorted(added.names)])}")
    try:
        return added[name].load()
    except (ImportError, AttributeError) as error:
        raise FramepredError(f"policy {name!r} was installed and cannot be loaded ({error}): mend it") from error
