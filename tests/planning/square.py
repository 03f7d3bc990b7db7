"""A world that is known exactly: a square that four actions move, as in `moving_square`, as a Gymnasium environment."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from conftest import MOVES
from torch import Tensor

ID = "test/Square-v0"


def draw(row: int, column: int) -> Tensor:
    picture = torch.full((3, 64, 64), 30, dtype=torch.uint8)
    rows, columns = (torch.arange(16) + row) % 64, (torch.arange(16) + column) % 64
    picture[:, rows[:, None], columns] = torch.tensor([250, 220, 40], dtype=torch.uint8)[:, None, None]
    return picture


class Square(gymnasium.Env):
    """Ends after `length` steps; the seed decides where the square begins."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None, length: int = 1000, actions: int = 4) -> None:
        self.render_mode, self.length = render_mode, length
        self.action_space = gymnasium.spaces.Discrete(actions)
        self.observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)

    def get_action_meanings(self) -> list[str]:
        return ["LEFT", "RIGHT", "UP", "DOWN", "JUMP"][: int(self.action_space.n)]

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.at, self.steps = tuple(int(v) * 4 for v in self.np_random.integers(0, 16, 2)), 0
        return self.render(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        move, self.steps = MOVES[int(action)], self.steps + 1
        self.at = tuple((a + m) % 64 for a, m in zip(self.at, move, strict=True))
        return self.render(), 0.0, self.steps >= self.length, False, {}

    def render(self) -> Any:
        return draw(*self.at).movedim(0, -1).numpy()


@contextmanager
def registered() -> Iterator[None]:
    """Make Gymnasium know the world: whole, of short episodes, and with another action."""
    options: dict[str, dict[str, int]] = {ID: {}, "test/Short-v0": {"length": 18}, "test/Five-v0": {"actions": 5}}
    for name, arguments in options.items():
        gymnasium.register(name, Square, kwargs=arguments, disable_env_checker=True)
    yield
    for name in options:
        gymnasium.registry.pop(name)


def moved(at: tuple[int, int], actions: Sequence[int]) -> list[tuple[int, int]]:
    """Return where the square stands after each action."""
    places = []
    for action in actions:
        at = ((at[0] + MOVES[action][0]) % 64, (at[1] + MOVES[action][1]) % 64)
        places.append(at)
    return places
