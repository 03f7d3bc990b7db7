"""Worlds of a run that are stepped together, with rewards: what the environments of Gymnasium are made of."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.world.goal import pixel_distance
from framepred.world.run import Run
from framepred.world.starts import Starts

Array = np.ndarray[Any, Any]
Reward = Callable[[Array, Array, Array], Any]
"""(before, actions, after) → rewards (N,), or a pair of those and who has ended, bool (N,).

`before` and `after` are uint8 (N, H, W, 3), `actions` (N,) or (N, D): those of all worlds at once.
"""


class Worlds:
    """N worlds that are stepped together, the rows of one `Session`; pictures are uint8 (N, H, W, 3).

    A world that ends begins anew in its row, from as many frames as the model sees of the others then. What a world
    shows depends on the seed, its row and its own actions alone, not on what happens in others.
    """

    def __init__(
        self, run: Run, starts: Starts, count: int, context: int, horizon: int, reward: Reward, **sampling: Any
    ) -> None:
        self.run, self.count, self._starts, self._context = run, count, starts, context
        self._horizon, self._reward, self._sampling = horizon, reward, sampling
        self.begun = False

    def begin(self, seed: int) -> None:
        """Begin all worlds of a seed."""
        self._generators = [np.random.default_rng((seed, row)) for row in range(self.count)]
        frames, actions = self._starts.draw(self._generators[0], self._context)
        self._session = self.run.session(frames, actions, self.count, seed, **self._sampling)
        pictures = self._picture(frames[-1])
        self.pictures, self._steps, self.begun = np.stack([pictures] * self.count), np.zeros(self.count, int), True
        self.restart(range(1, self.count))

    def restart(self, rows: Sequence[int]) -> None:
        """Begin these worlds anew, each at a moment that its own generator draws."""
        seen, moments = self._session.seen, []
        for row in rows:
            frames, actions = self._starts.draw(self._generators[row], seen)
            moments.append(self.run.session(frames, actions).mark())
            self.pictures[row] = self._picture(frames[-1])
        self._session.restart(rows, moments)
        self._steps[list(rows)] = 0

    def step(self, actions: Array) -> tuple[Array, Array, Array]:
        """Take an action in each, and set `pictures`; return rewards float64 (N,), who has ended, who is cut off."""
        before = self.pictures
        given = torch.from_numpy(np.ascontiguousarray(actions)) if self.run.layout.actions else None
        self.pictures = self._picture(self._session.step(given))
        answer = self._reward(before, actions, self.pictures)
        rewards, ended = answer if isinstance(answer, tuple) else (answer, np.zeros(self.count, bool))
        self._steps += 1
        rewards, ended = np.asarray(rewards, np.float64), np.asarray(ended, bool)
        if rewards.shape != (self.count,) or ended.shape != (self.count,):
            raise FramepredError(f"the reward has shape {rewards.shape}, of {self.count} worlds: give one for each")
        return rewards, ended, self._steps >= self._horizon

    @staticmethod
    def _picture(frames: Tensor) -> Array:
        return frames.movedim(-3, -1).cpu().contiguous().numpy()


def goal_reward(goal: Tensor, reached: float = 0.0) -> Reward:
    """Minus the distance of pixels to a goal uint8 (3, H, W), -1 to 0; at `reached` or nearer an episode ends."""
    distance = pixel_distance(goal)

    def reward(before: Array, actions: Array, after: Array) -> tuple[Array, Array]:
        far = distance(torch.from_numpy(after).movedim(-1, -3)).double().numpy()
        return -far, far <= reached

    return reward


def no_reward(before: Array, actions: Array, after: Array) -> Array:
    return np.zeros(len(after))
