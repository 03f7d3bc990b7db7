"""What says how good actions would be: imagination, the true simulator, and what a model must be better than."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from framepred.world.goal import Distance
from framepred.world.session import Session


class World(Protocol):
    """Where a plan is looked for: it foresees what actions lead to, and is told what really happened."""

    def judge(self, actions: Tensor) -> Tensor:
        """Sequences of actions (N, T, …) from here → distances to the goal float32 (N, T)."""
        ...

    def observe(self, action: Tensor, frame: Tensor) -> None:
        """Go on from the frame uint8 (3, H, W) that an action, () or (D,), really led to."""
        ...


class Imagined:
    """The model imagines what follows. The session has one future, and is its own again after every judgement."""

    def __init__(self, session: Session, distance: Distance) -> None:
        self.session, self._distance = session, distance

    def judge(self, actions: Tensor) -> Tensor:
        made = imagine(self.session, actions)
        return self._distance(made.flatten(0, 1)).view(made.shape[:2])

    def observe(self, action: Tensor, frame: Tensor) -> None:
        self.session.observe(frame, action)


class Shuffled(Imagined):
    """The model imagines the actions of the next candidate instead: what is left when actions mean nothing."""

    def judge(self, actions: Tensor) -> Tensor:
        return super().judge(actions.roll(1, 0))


class Copied:
    """Nothing ever changes: the last frame is copied."""

    def __init__(self, frame: Tensor, distance: Distance) -> None:
        self._frame, self._distance = frame, distance

    def judge(self, actions: Tensor) -> Tensor:
        return self._distance(self._frame[None]).expand(actions.shape[:2])

    def observe(self, action: Tensor, frame: Tensor) -> None:
        self._frame = frame


class Simulated:
    """The true simulator: `replay` takes actions from the start and returns a frame for each, or fewer at an end."""

    def __init__(self, replay: Callable[[Sequence[Tensor]], Tensor], distance: Distance) -> None:
        self._replay, self._distance, self._taken = replay, distance, list[Tensor]()

    def judge(self, actions: Tensor) -> Tensor:
        rows, horizon = [], actions.shape[1]
        for candidate in actions:
            frames = self._replay([*self._taken, *candidate])[len(self._taken) :]
            far = self._distance(frames) if len(frames) else torch.empty(0)
            # After an end nothing is reached any more.
            rows.append(torch.cat([far, torch.full((horizon - len(far),), torch.inf)]))
        return torch.stack(rows)

    def observe(self, action: Tensor, frame: Tensor) -> None:
        self._taken.append(action)


@torch.inference_mode()
def imagine(session: Session, actions: Tensor) -> Tensor:
    """Imagine what sequences of actions (N, T) or (N, T, D) lead to: uint8 (N, T, 3, H, W).

    Sequences that begin alike are one future for as long as they do. The session stays where it is.
    """
    # Which future of `branch` each candidate goes on from.
    branch, at = session.fork([0]), torch.zeros(len(actions), dtype=torch.int64)
    frames = []
    for step in range(actions.shape[1]):
        taken = actions[:, step]
        _, known = torch.unique(taken, dim=0, return_inverse=True)
        pairs, index = torch.unique(at * len(actions) + known, return_inverse=True)
        # The first candidate of each pair of a past and an action stands for all of them.
        first = torch.full((len(pairs),), len(actions)).scatter_reduce(0, index, torch.arange(len(actions)), "amin")
        rows = at[first].tolist()
        branch = branch if rows == list(range(branch.samples)) else branch.fork(rows)
        frames.append(branch.step(taken[first])[index].cpu())
        at = index
    return torch.stack(frames, 1)
