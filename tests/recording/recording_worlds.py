"""Small worlds that tests record, and a run that imagines one of them without any training."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch
from torch import Tensor

from framepred.sequence.actions import ActionSpace


@contextmanager
def registered(worlds: Mapping[str, tuple[type, dict[str, Any]]]) -> Iterator[None]:
    """Let Gymnasium know worlds by these ids, for as long as the block lasts."""
    for name, (world, arguments) in worlds.items():
        gymnasium.register(name, world, kwargs=arguments, disable_env_checker=True)
    yield
    for name in worlds:
        gymnasium.registry.pop(name)


class Painter(gymnasium.Env):
    """Paints the last action and the step count, over noise that the seed decides."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}
    meanings = ("WAIT", "LEFT", "RIGHT", "JUMP")

    def __init__(self, render_mode: str | None = None, length: int = 1000, continuous: bool = False) -> None:
        self.render_mode = render_mode
        self.length = length
        self.action_space = gymnasium.spaces.Discrete(len(self.meanings))
        if continuous:
            self.action_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,))

    def get_action_meanings(self) -> list[str]:
        return list(self.meanings)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.noise = self.np_random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        self.steps, self.paint = 0, 255
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        self.paint = int(np.ravel(action)[0] * 200) if np.ndim(action) else int(action) * 50 + 10
        return np.zeros(1, np.float32), 0.0, self.steps >= self.length, False, {}

    def render(self) -> np.ndarray:
        picture = self.noise.copy()
        picture[:16] = self.paint
        picture[16:20] = self.steps
        return picture


class Runner(Painter):
    """The same game with fewer buttons in another order."""

    meanings = ("JUMP", "DUCK", "LEFT")


class Rooms(gymnasium.Env):
    """Eight rooms in a row. The first token of a room is its number; in room TELEVISION, half of the view is static.

    Actions go left, stay, and go right. A token is a square of 8 x 8 pixels.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
    COUNT, TELEVISION, START = 8, 1, 0

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.action_space = gymnasium.spaces.Discrete(3)
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.room = self.START
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.room = self.after(self.room, int(action))
        return np.zeros(1, np.float32), 0.0, False, False, {}

    @classmethod
    def after(cls, room: int, action: int) -> int:
        return min(max(room + action - 1, 0), cls.COUNT - 1)

    @classmethod
    def view(cls, room: int, static: Any) -> Any:
        """Return a room's tokens int64 (16,); `static` is what is drawn for 16 of them."""
        tokens = np.random.default_rng(room).integers(0, 8, 16)
        if room == cls.TELEVISION:
            tokens[8:] = static[8:]
        tokens[0] = room
        return tokens

    def render(self) -> Any:
        tokens = self.view(self.room, self.np_random.integers(0, 8, 16)).reshape(4, 4)
        return np.repeat((tokens * 30).astype(np.uint8).repeat(8, 0).repeat(8, 1)[..., None], 3, 2)


Imagine = Callable[[Tensor, Tensor, np.random.Generator], Any]
"""(tokens (N,), action, random numbers) → the tokens of a next frame."""


def imagine_rooms(tokens: Tensor, action: Tensor, generator: np.random.Generator) -> Any:
    """Know where actions lead and that static is noise, and be in doubt of one token of any room."""
    room, drawn = Rooms.after(int(tokens[0]), int(action)), generator.integers(0, 8, 16)
    made = Rooms.view(room, drawn)
    made[5] = drawn[5]
    return made


class FakeSession:
    """What the policy asks of a session; tokens are read from squares of 8 x 8 pixels."""

    def __init__(self, imagine: Imagine, tokens: Tensor, seed: list[int]) -> None:
        self._imagine, self.tokens, self._seed = imagine, tokens, seed

    def fork(self, count: int) -> "FakeSession":
        return FakeSession(self._imagine, self.tokens.expand(count, -1), self._seed)

    def step(self, actions: Tensor) -> None:
        generator = np.random.default_rng(self._seed)
        made = [self._imagine(t, a, generator) for t, a in zip(self.tokens, actions, strict=True)]
        self.tokens = torch.from_numpy(np.stack(made))

    def observe(self, frame: Tensor, action: Tensor) -> None:
        self.tokens, self._seed = seen_tokens(frame), [self._seed[0], self._seed[1] + 1]


def seen_tokens(frame: Tensor) -> Tensor:
    return (frame[0, ::8, ::8].long() // 30).flatten()[None]


def fake_run(folder: Path, imagine: Imagine, space: ActionSpace) -> Any:
    """Return a run of frames of 32 x 32 pixels that imagines as it is told to."""
    (folder / "model.safetensors").write_bytes(b"weights")

    def session(context: Tensor, seed: int, temperature: float) -> FakeSession:
        assert temperature == 1.0
        return FakeSession(imagine, seen_tokens(context[-1]), [seed, 0])

    return SimpleNamespace(
        path=folder, fps=10.0, tokenizer=SimpleNamespace(frame_size=(32, 32)),
        layout=SimpleNamespace(actions=space), session=session,
    )  # fmt: skip
