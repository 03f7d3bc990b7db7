"""The game: one future of a world that a player steers, four where it was forked, and what really happens beside it."""

from collections import deque
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.evaluation.metrics import mse, psnr_of
from framepred.play.controls import Action, Controls
from framepred.play.scene import Scene, Stage
from framepred.world.run import Run
from framepred.world.session import Moment, Session

FORKS = 4
_MOST_BYTES = 256 << 20
"""What is remembered of the frames that were played; the oldest are forgotten."""


@dataclass(frozen=True)
class View:
    """A moment as it is shown: `frame` counts from the clip's first, `action` led to it.

    `pictures` uint8 (S, 3, H, W) are the futures, one or `FORKS`. `real` uint8 (3, H, W) is what really happened, None
    where nothing is known; `psnr` (S,) in dB is how near the futures came to it since they were last the same.
    `entropy` in nats is how uncertain a token was on the average; None where it was not asked for.
    """

    frame: int
    action: Action
    pictures: Tensor
    real: Tensor | None = None
    psnr: tuple[float, ...] | None = None
    entropy: float | None = None


@dataclass(frozen=True)
class Played:
    """What was played: frames uint8 (T, 3, H, W), the T - 1 actions between them, and frames a second."""

    frames: Tensor
    actions: tuple[Action, ...]
    fps: float


@dataclass(frozen=True)
class _Shown:
    """Pictures uint8 (S, 3, H, W) that were shown, and the action that led to them, where it is `known`."""

    pictures: Tensor
    action: Action
    known: bool = True

    def take(self, row: Tensor) -> "_Shown":
        return self if len(self.pictures) == 1 else replace(self, pictures=self.pictures[row])


@dataclass(frozen=True)
class _Past:
    """A step that can be taken again: where the session stood before it, its action and what really happened."""

    before: Moment
    action: Action
    real: Tensor


class Game:
    """A session that is played. The same seed, scene and actions give the same frames as `rollout`.

    Every method that changes it returns what is then to be seen. FramepredError for what is not possible now; then
    nothing has changed.
    """

    def __init__(self, run: Run, controls: Controls, stage: Stage) -> None:
        self.run, self.controls, self.stage = run, controls, stage
        self.start, self.seed, self.temperature = 0, 0, run.temperature
        height, width = run.tokenizer.frame_size
        most = max(run.window, _MOST_BYTES // (3 * height * width))
        self._played = deque[_Shown](maxlen=most)
        self._past = deque[_Past](maxlen=run.window)
        self._errors, self._compared = torch.zeros(1, dtype=torch.float64), 0
        self.restart(0, 0, run.temperature)

    @property
    def forked(self) -> bool:
        return self._session.samples > 1

    def restart(self, start: int, seed: int, temperature: float) -> View:
        """Begin again at another moment of the clip, or in another episode, with these sampling settings."""
        sampling = self.run.sampling(temperature, 0, 1.0, seed)
        scene = self.stage.begin(start, seed)
        self._session: Session = self.run.session(
            scene.frames, scene.actions, seed=sampling.seed, temperature=sampling.temperature
        )
        self.start, self.seed, self.temperature = start, seed, temperature
        self._fps = scene.fps
        self._played.clear()
        self._past.clear()
        self._played.extend(_given(scene, self.controls))
        self._real = scene.frames[-1] if self.stage.is_real else None
        self._forget_errors()
        self._view = View(self._session.frame - 1, None, scene.frames[-1:], self._real)
        return self._view

    def step(self, action: Action, with_entropy: bool = False) -> View:
        """Imagine the next frame after an action, in every future."""
        session, before = self._session, self._session.mark()
        pictures = session.step(action).cpu()
        entropy = self._entropy(before, action) if with_entropy else None
        if self._real is not None:
            self._real = self.stage.step(action)
        if self._real is None:
            self._past.clear()
        else:
            self._past.append(_Past(before, action, self._real))
            self._errors, self._compared = self._errors + mse(pictures, self._real[None]), self._compared + 1
        self._played.append(_Shown(pictures, action))
        self._view = View(session.frame - 1, action, pictures, self._real, self._psnr(), entropy)
        return self._view

    def fork(self, action: Action) -> View:
        """Go on from here in four futures: their next frames after an action."""
        if self.forked:
            raise FramepredError("there are four futures already: choose one of them first")
        self._session = self._session.fork(FORKS)
        self._errors = self._errors.expand(FORKS)
        return self.step(action)

    def choose(self, index: int) -> View:
        """Go on in one of the futures alone; the others are forgotten."""
        if not self.forked:
            raise FramepredError("there is one future only: fork it first")
        if not 0 <= index < FORKS:
            raise FramepredError(f"future {index} is none of them: give 0 to {FORKS - 1}")
        self._session = self._session.fork([index])
        row = torch.tensor([index])
        for i, shown in enumerate(self._played):
            self._played[i] = shown.take(row)
        for i, past in enumerate(self._past):
            self._past[i] = replace(past, before=past.before.take(row.to(past.before.ids.device)))
        self._errors = self._errors[row]
        self._view = replace(self._view, pictures=self._view.pictures[row], psnr=self._psnr())
        return self._view

    def anchor(self) -> View:
        """Put what really happened in the place of what was imagined, as far back as the run sees."""
        if not self.stage.is_real:
            raise FramepredError("nothing real is beside this game: start framepred play with --env")
        if self._real is None:
            raise FramepredError("the episode has ended, nothing real is left: restart with another seed")
        if not self._past:
            return self._view
        session = self._session
        session.rewind(self._past[0].before)
        for past in self._past:
            session.observe(past.real, past.action)
        real, action = self._past[-1].real, self._past[-1].action
        self._past.clear()
        pictures = real[None].expand(session.samples, -1, -1, -1)
        self._played[-1] = _Shown(pictures, action)
        self._forget_errors()
        self._view = View(session.frame - 1, action, pictures, real, None, None)
        return self._view

    def view(self) -> View:
        """Return what is to be seen now."""
        return self._view

    def played(self) -> Played:
        """Return what was played, from the first frame on after which all actions are known."""
        if self.forked:
            raise FramepredError("there are four futures: choose the one that is to be kept")
        parts = list(self._played)
        first = max((i for i, shown in enumerate(parts) if not shown.known), default=0)
        frames = torch.cat([shown.pictures for shown in parts[first:]])
        return Played(frames, tuple(shown.action for shown in parts[first + 1 :]), self._fps)

    def _entropy(self, before: Moment, action: Action) -> float:
        """Return the mean entropy of the last frame's tokens in nats, by a pass of its own that leaves no trace."""
        session = self._session
        reader = session.fork()
        reader.rewind(before)
        action_ids = self.run.layout.action_ids(self.controls.tensor([action]), 1, "action")
        return float(reader.observe_tokens(session.tokens.flatten(1), action_ids).entropy.mean())

    def _psnr(self) -> tuple[float, ...] | None:
        return tuple(psnr_of(self._errors / self._compared).tolist()) if self._compared else None

    def _forget_errors(self) -> None:
        self._errors, self._compared = torch.zeros(self._session.samples, dtype=torch.float64), 0


def _given(scene: Scene, controls: Controls) -> list[_Shown]:
    """Return the frames of a scene as if they had been played."""
    count, known = len(scene.frames), scene.actions is not None or controls.kind == "none"
    rows = [None] * (count - 1) if scene.actions is None else scene.actions[: count - 1].tolist()
    actions = [None, *(tuple(row) if isinstance(row, list) else row for row in rows)]
    return [
        _Shown(frame[None], action, known or i == 0)
        for i, (frame, action) in enumerate(zip(scene.frames, actions, strict=True))
    ]
