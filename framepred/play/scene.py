"""Where a game begins: at a moment of a clip, or at the first frames of an environment, which then goes beside it."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.play.controls import Action, Controls
from framepred.recording.environment import Environment
from framepred.recording.matching import OwnActions
from framepred.sequence.actions import ActionSpace
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

    def __init__(self, env: Environment, controls: Controls, space: ActionSpace | None, context: int) -> None:
        self._env, self._controls, self._context = env, controls, context
        self._own = OwnActions(env, space)
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
        taken = self._controls.tensor([action])
        if self._ended or taken is None:
            return None
        try:
            frame, self._ended = self._env.step(self._own(taken[0]))
        except FramepredError:
            raise
        except Exception as error:
            # Whatever an environment's own code raises.
            self._ended = True
            raise FramepredError(f"{self._env.name} failed ({error!r:.200}): restart, or leave out --env") from error
        return frame
