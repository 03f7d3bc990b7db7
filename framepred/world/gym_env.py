"""Gymnasium's two kinds of environment over `Worlds`, and their id. Importing it registers `framepred/World-v0`."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace
from framepred.world.worlds import Array, Worlds


class WorldEnv(gymnasium.Env[Array, Any]):
    """One world. A reset without a seed goes on with the worlds of the last seed, as Gymnasium has it."""

    def __init__(self, worlds: Worlds, render_mode: str | None) -> None:
        self._worlds, self.render_mode = worlds, render_mode
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": worlds.run.fps}
        self.observation_space = observation_space(worlds)
        self.action_space = action_space(worlds.run.layout.actions)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None or not self._worlds.begun:
            self._worlds.begin(_session_seed(self.np_random))
        else:
            self._worlds.restart([0])
        return self._worlds.pictures[0].copy(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        rewards, ended, cut = self._worlds.step(np.asarray(action)[None])
        return self._worlds.pictures[0].copy(), float(rewards[0]), bool(ended[0]), bool(cut[0]), {}

    def render(self) -> Array | None:  # type: ignore[override]
        return self._worlds.pictures[0].copy() if self.render_mode == "rgb_array" and self._worlds.begun else None


class WorldVectorEnv(VectorEnv[Array, Any, Array]):
    """N worlds in one session: row 0 begins as a `WorldEnv` of the same seed, and is the same until it ends.

    A world that has ended begins anew at the next step, in which its action is not taken (AutoresetMode.NEXT_STEP).
    Rows share the length of their past: one that begins anew does so after as many frames as the others see then, at
    least half a window, and not after `context` frames.
    """

    def __init__(self, worlds: Worlds, render_mode: str | None) -> None:
        self._worlds, self.render_mode, self.num_envs = worlds, render_mode, worlds.count
        self.metadata = {
            "render_modes": ["rgb_array"], "render_fps": worlds.run.fps, "autoreset_mode": AutoresetMode.NEXT_STEP,
        }  # fmt: skip
        self.single_observation_space = observation_space(worlds)
        self.single_action_space = action_space(worlds.run.layout.actions)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._over = np.zeros(self.num_envs, bool)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = (
            np.ones(self.num_envs, bool) if not options else options.get("reset_mask", np.ones(self.num_envs, bool))
        )
        if seed is not None or not self._worlds.begun:
            if not chosen.all():
                raise FramepredError("a reset_mask without a world that has begun, or with a seed: reset all of them")
            self._worlds.begin(_session_seed(self.np_random))
        else:
            self._worlds.restart(np.flatnonzero(chosen).tolist())
        self._over &= ~chosen
        return self._worlds.pictures.copy(), {}

    def step(self, actions: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        rewards, ended, cut = self._worlds.step(np.asarray(actions))
        new = np.flatnonzero(self._over)
        if len(new):
            self._worlds.restart(new.tolist())
            rewards[new], ended[new], cut[new] = 0.0, False, False
        self._over = ended | cut
        return self._worlds.pictures.copy(), rewards, ended, cut, {}

    def render(self) -> tuple[Array, ...] | None:
        return tuple(self._worlds.pictures.copy()) if self.render_mode == "rgb_array" and self._worlds.begun else None


def observation_space(worlds: Worlds) -> spaces.Box:
    return spaces.Box(0, 255, (*worlds.run.tokenizer.frame_size, 3), np.uint8)


def action_space(space: ActionSpace | None) -> spaces.Space[Any]:
    """A run's actions as a Gymnasium space; of a run without actions one, which is not told."""
    if space is None or space.kind == "discrete":
        return spaces.Discrete(space.count if space else 1)
    low, high = space.bounds()
    return spaces.Box(low.numpy(), high.numpy(), dtype=np.float32)


def _session_seed(generator: np.random.Generator) -> int:
    return int(generator.integers(2**31))


_ID, _MAKER = "framepred/World-v0", "framepred.world.env:make_env"
if _ID not in gymnasium.registry:
    gymnasium.register(_ID, entry_point=_MAKER, vector_entry_point=_MAKER)
