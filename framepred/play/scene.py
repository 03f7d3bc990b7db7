"""Where a game begins: at a moment of a clip, or at the first frames of an environment, which then goes beside it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.play.controls import Action, Controls
from framepred.recording.environment import Environment
from framepred.sources.contract import StoredEpisode
from framepred.world.footage import given_actions, rate_of_run
from framepred.world.run import Run


@dataclass(frozen=True)
class Scene:
    """Given frames uint8 (T, 3, H, W), the T - 1 actions between them or None, and frames a second."""

    frames: Tensor
    actions: Tensor | None
    fps: float


class Stage(Protocol):
    """What a game begins from, and what really happens in it, where that is known."""

    is_real: bool
    """Whether `step` shows what really happens."""

    def begin(self, start: int, seed: int) -> Scene:
        """Return a scene: at frame `start` of a clip, or of an episode that the seed decides."""
        ...

    def step(self, action: Action) -> Tensor | None:
        """Return the frame uint8 (3, H, W) that really follows an action; None where nothing does."""
        ...


class ClipStage:
    """A clip, of which `context` frames are given; what follows them is not looked at."""

    is_real = False

    def __init__(self, file: StoredEpisode, run: Run, context: int) -> None:
        self._file, self._run, self._context = file, run, context

    def begin(self, start: int, seed: int) -> Scene:
        """Read frames from number `start` on, as `rollout` reads them; FramepredError where there are too few."""
        file, run, stop = self._file, self._run, start + self._context
        if start < 0:
            raise FramepredError(f"frame {start} is not allowed: give 0 or more")
        given = given_actions(file, None, run)
        rate = rate_of_run(file, run, given is not None)
        clip = file.read(run.tokenizer.frame_size, rate, stop, with_actions=False)
        if len(clip.frames) < stop:
            raise FramepredError(
                f"{file.name} has {len(clip.frames)} frames: from frame {start} on there are not the "
                f"{self._context} that are given; begin at {max(0, len(clip.frames) - self._context)} or earlier"
            )
        actions = given[0][start : stop - 1] if given else None
        if actions is not None and len(actions) < self._context - 1:
            raise FramepredError(f"{file.actions_from} ends before frame {stop - 1}: give a row for each frame")
        if actions is not None and run.layout.actions is not None:
            run.layout.actions.encode(actions, str(file.actions_from))
        return Scene(clip.frames[start:], actions, clip.fps)

    def step(self, action: Action) -> Tensor | None:
        return None


class EnvironmentStage:
    """An environment that takes the same actions as the game, matched by name where the run's have names."""

    is_real = True

    def __init__(self, env: Environment, controls: Controls, named: bool, context: int) -> None:
        self._env, self._controls, self._context = env, controls, context
        self._ids = _matched(env, controls, named)
        self._ended = False

    def begin(self, start: int, seed: int) -> Scene:
        """Begin the episode of a seed, and take the idle action until there are `context` frames."""
        frames, self._ended = [self._env.reset(seed)], False
        for _ in range(self._context - 1):
            frame = self.step(self._controls.idle)
            if frame is None:
                raise FramepredError(f"the episode of {self._env.name} with seed {seed} ends at once: give another")
            frames.append(frame)
        taken = self._controls.tensor([self._controls.idle] * (self._context - 1))
        return Scene(torch.stack(frames), taken, self._env.fps)

    def step(self, action: Action) -> Tensor | None:
        """Return the frame that really follows; None once the episode has ended."""
        if self._ended:
            return None
        try:
            frame, self._ended = self._env.step(self._own(action))
        except FramepredError:
            raise
        except Exception as error:
            # Whatever an environment's own code raises.
            self._ended = True
            raise FramepredError(f"{self._env.name} failed ({error!r:.200}): restart, or leave out --env") from error
        return frame

    def _own(self, action: Action) -> Any:
        if isinstance(action, int):
            return self._ids[action]
        space = self._env.action_space
        values = np.asarray(action, dtype=np.float32).reshape(space.shape)
        return np.clip(values, space.low, space.high).astype(space.dtype)


def _matched(env: Environment, controls: Controls, named: bool) -> Sequence[int]:
    """Return the environment's id of each of the run's discrete actions; FramepredError where the two do not fit."""
    from gymnasium import spaces

    space, count, theirs = env.action_space, len(controls.names), env.action_names
    if controls.kind == "continuous" and isinstance(space, spaces.Box) and int(np.prod(space.shape)) == count:
        return ()
    if controls.kind == "discrete" and isinstance(space, spaces.Discrete) and space.n >= count:
        if not named or theirs is None:
            return range(int(space.start), int(space.start) + count)
        missing = [name for name in controls.names if name not in theirs]
        if not missing:
            return [theirs.index(name) for name in controls.names]
        raise FramepredError(f"{env.name} has no action {missing[0]}, which the run knows: give the run's environment")
    raise FramepredError(
        f"{env.name} takes {space}, the run {count or 'no'} actions ({controls.kind}): give the run's environment"
    )
