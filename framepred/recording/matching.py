"""A run's actions → an environment's own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredError
from framepred.recording.environment import Environment
from framepred.sequence.actions import ActionSpace


class OwnActions:
    """Turns an action of a run, int64 () or float32 (D,), into the environment's own.

    Discrete ones are matched by name where both have names, else by number. FramepredError where the environment takes
    other actions than the run knows.
    """

    def __init__(self, env: Environment, space: ActionSpace | None) -> None:
        from gymnasium import spaces

        own = env.action_space
        self._space: Any = own
        self._ids: Sequence[int] = ()
        if space is None:
            raise FramepredError("the run was trained without actions: give a run that was trained with them")
        if space.kind == "discrete" and isinstance(own, spaces.Discrete):
            names, theirs = values_of(space.names), env.action_names
            if names and theirs:
                self._ids = _by_name(env.name, names, theirs)
                return
            if own.n == space.count:
                self._ids = range(int(own.start), int(own.start) + space.count)
                return
        if space.kind == "continuous" and isinstance(own, spaces.Box) and int(np.prod(own.shape)) == space.slots:
            return
        mine = f"{space.count} discrete ids" if space.kind == "discrete" else f"{space.slots} continuous numbers"
        raise FramepredError(
            f"{env.name} takes {own}, the run knows {mine}: give the environment that it was trained on"
        )

    def __call__(self, action: Tensor) -> Any:
        if not action.is_floating_point():
            return self._ids[int(action)]
        values = action.cpu().numpy().reshape(self._space.shape)
        return np.clip(values, self._space.low, self._space.high).astype(self._space.dtype)


def _by_name(env: str, names: Sequence[str], theirs: Sequence[str]) -> list[int]:
    missing = [name for name in names if name not in theirs]
    if missing:
        raise FramepredError(
            f"{env} has no action {missing[0]}, which the run knows; it has {', '.join(theirs)}: "
            "give the environment that the run was trained on"
        )
    return [theirs.index(name) for name in names]
