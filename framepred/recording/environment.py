"""A Gymnasium environment as it is recorded: frames of one size, a fixed number of its steps each, actions by name."""

import contextlib
import importlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.video.resize import fit_frames

# A package registers its environments when it is imported.
_PROVIDERS = {
    "vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "ale": ("ale_py", "atari"),
    "crafter": ("crafter", "crafter"),
    "carracing": ("gymnasium.envs.box2d", "box2d"),
}
_TARGET_FPS = 10.0
_AXES = {"CarRacing": ("steer", "gas", "brake")}
"""What Gymnasium's documentation calls the numbers of an action; its environments do not tell."""


class Environment:
    """An environment that shows frames uint8 (3, H, W) of `size`; each action is taken for `frame_skip` of its steps.

    `game` is the ViZDoom game behind it, None for any other environment. Made by `open_environment`.
    """

    def __init__(self, env: Any, name: str, size: tuple[int, int], frame_skip: int) -> None:
        self.name, self.size, self.frame_skip, self._env = name, size, frame_skip, env
        game = getattr(env.unwrapped, "game", None)
        self.game = game if hasattr(game, "get_game_variable") else None
        self._draw = _draw_when_kept(env.unwrapped, frame_skip) if name.startswith("CarRacing") else None

    @property
    def action_space(self) -> Any:
        """The environment's own Gymnasium space of actions."""
        return self._env.action_space

    @property
    def fps(self) -> float:
        """Frames a second, as they are shown here."""
        return float(self._env.metadata.get("render_fps") or _TARGET_FPS * self.frame_skip) / self.frame_skip

    @property
    def action_names(self) -> list[str] | None:
        """The names of discrete actions by id; None where the environment does not tell them."""
        if self.game is not None and hasattr(self._env.unwrapped, "button_map"):
            buttons = [button.name for button in self.game.get_available_buttons()]
            return [
                "+".join(b for b, on in zip(buttons, row, strict=True) if on) or "NOOP"
                for row in self._env.unwrapped.button_map
            ]
        if hasattr(self._env.unwrapped, "get_action_meanings"):
            return list(self._env.unwrapped.get_action_meanings())
        return None

    @property
    def axes(self) -> tuple[str, ...]:
        """The names of the numbers of a continuous action; none where they are not known."""
        return _AXES.get(self.name.split("/")[-1].split("-v")[0], ())

    def reset(self, seed: int) -> Tensor:
        """Start the episode that a seed decides, and return its first frame."""
        observation, _ = self._env.reset(seed=seed)
        return self._frame(observation)

    def step(self, action: Any) -> tuple[Tensor | None, bool]:
        """Take an action; return the frame that it led to, and whether the episode ended.

        The frame is None where there is none: the last of a ViZDoom episode is black, no result of an action.
        """
        ended = False
        # ViZDoom skips frames inside its engine, four times as fast as stepping through them.
        for _ in range(1 if hasattr(self._env.unwrapped, "frame_skip") else self.frame_skip):
            observation, _, terminated, truncated, _ = self._env.step(action)
            ended = terminated or truncated
            if ended:
                observation = observation if self._draw is None else self._draw()
                break
        return (None if ended and self.game is not None else self._frame(observation)), ended

    def place(self) -> tuple[float, float, float] | None:
        """Return the player's x and y in the game's units and angle in degrees; None where the game does not say."""
        if self.game is None:
            return None
        import vizdoom

        names = ("POSITION_X", "POSITION_Y", "ANGLE")
        x, y, angle = (self.game.get_game_variable(getattr(vizdoom.GameVariable, name)) for name in names)
        return x, y, angle

    def _frame(self, observation: Any) -> Tensor:
        picture = observation.get("screen") if isinstance(observation, dict) else observation
        if not _is_rgb(picture):
            picture = self._env.render()
        if not _is_rgb(picture):
            raise FramepredError(f"{self._env} shows no RGB picture: choose an environment with rgb_array rendering")
        return fit_frames(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None], self.size)[0]


@contextlib.contextmanager
def open_environment(name: str, size: tuple[int, int], frame_skip: int | None = None) -> Iterator[Environment]:
    """Make an environment by its Gymnasium id and close it at the end; `frame_skip` None is about 10 frames a second.

    Raises FramepredError for one that cannot be made, or whose actions are neither discrete nor numbers.
    """
    env, skip = _make(name, frame_skip)
    game = getattr(env.unwrapped, "game", None)
    # ViZDoom leaves files in the working directory.
    with tempfile.TemporaryDirectory() as scratch:
        if game is not None and hasattr(game, "set_doom_config_path"):
            game.set_doom_config_path(f"{scratch}/vizdoom.ini")
        try:
            _require_flat_actions(env, name)
            yield Environment(env, name, size, skip)
        finally:
            env.close()
            with contextlib.suppress(OSError):
                Path("_vizdoom").rmdir()


def _make(name: str, frame_skip: int | None) -> tuple[Any, int]:
    """Make the environment; return it and its frame skip."""
    prefix = next((p for p in _PROVIDERS if name.lower().startswith(p)), None)
    try:
        import gymnasium
    except ImportError as error:
        extra = "gym" if prefix is None else _PROVIDERS[prefix][1]
        raise FramepredError(f"environment {name} needs gymnasium: pip install 'framepred[{extra}]'") from error
    if prefix is not None:
        module, extra = _PROVIDERS[prefix]
        try:
            importlib.import_module(module)
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            raise FramepredError(f"{name} needs an extra package: pip install 'framepred[{extra}]'") from error
    if prefix == "crafter":
        return _Crafter(), frame_skip or 1
    try:
        spec = gymnasium.spec(name)
        fps = _fps(gymnasium.make(name)) if frame_skip is None else None
        skip = frame_skip if frame_skip is not None else max(1, round(fps / _TARGET_FPS)) if fps else 1
        if prefix == "vizdoom":
            return gymnasium.make(name, frame_skip=skip, max_episode_steps=None), skip
        return gymnasium.make(spec, render_mode="rgb_array"), skip
    except (gymnasium.error.Error, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise FramepredError(f"cannot make environment {name!r} ({reason}): give an installed Gymnasium id") from error


def _fps(env: Any) -> float | None:
    with contextlib.closing(env):
        fps = env.metadata.get("render_fps")
    return float(fps) if fps else None


class _Crafter:
    """Crafter's environment, whose interface is older than Gymnasium's."""

    def __init__(self) -> None:
        import crafter
        import gymnasium

        self._crafter = crafter
        self._env: Any = crafter.Env()
        self.metadata: dict[str, Any] = {}
        self.action_space = gymnasium.spaces.Discrete(len(crafter.constants.actions))
        self.unwrapped = self

    def get_action_meanings(self) -> list[str]:
        return list(self._crafter.constants.actions)

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        self._env = self._crafter.Env(seed=seed)
        return self._env.reset(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        frame, reward, done, info = self._env.step(action)
        return frame, reward, done, False, info

    def close(self) -> None:
        pass


def _draw_when_kept(car: Any, skip: int) -> Callable[[], Any]:
    """Let CarRacing draw after a reset and after every `skip` steps: it draws at each, which is most of its time.

    Returns what draws it now.
    """
    draw, fps = car._render, car.metadata["render_fps"]
    # Its clock starts with a step of its own in the reset.
    car._render = lambda mode: draw(mode) if (round(car.t * fps) - 1) % skip == 0 else car.state
    return lambda: draw("state_pixels")


def _require_flat_actions(env: Any, name: str) -> None:
    from gymnasium import spaces

    if not isinstance(env.action_space, (spaces.Discrete, spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise FramepredError(
            f"environment {name} has actions of {env.action_space}: choose one with discrete or continuous actions"
        )


def _is_rgb(picture: Any) -> TypeGuard["np.ndarray[Any, Any]"]:
    return isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
