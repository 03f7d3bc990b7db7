"""A policy that goes where a run is in doubt, and loses interest in doubt that stays."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.recording.matching import OwnActions
from framepred.recording.policy import Policy, Setup
from framepred.sequence.actions import ActionSpace
from framepred.video.clock import say_rate
from framepred.world.run import Run
from framepred.world.session import Session

FUTURES = 4
"""Next frames that are imagined under each action."""
CANDIDATES = 8
"""Continuous actions that are drawn at each step, one of which is taken."""
_SHARPNESS = 4
"""The power of a likeness: a frame that is half as alike counts for a sixteenth of one that is the same."""
_NEW = 0.25
"""How much the frame of no doubt counts, beside those that were seen."""
_SAME = 1e-9


def doubt(futures: Tensor) -> Tensor:
    """Return the share of tokens in which two futures differ: of int64 (A, S, N), float64 (A,) from 0 to 1."""
    count = futures.shape[1]
    differ = (futures[:, :, None] != futures[:, None]).double().mean(-1)
    return differ.sum((1, 2)) / (count * (count - 1))


def interest(futures: Tensor, seen: Tensor, doubts: Tensor) -> Tensor:
    """Return the doubt of futures int64 (A, S, N) less the usual doubt of frames like them: float64 (A,).

    The usual doubt is the mean of `doubts` float64 (T,), which frames `seen` int64 (T, N) had before they came. Each
    counts as much as it is like the futures, where 1 is as alike as the futures are to each other; one more, of no
    doubt, counts 1/4. So doubt that stays is worth a fifth when it was met once, a ninth when it was met twice, and so
    on: noise that cannot be learned is soon worth less than what is new.
    """
    own = doubt(futures)
    alike = (futures[:, :, None] == seen).double().mean((1, 3))
    weights = (alike / (1 - own).clamp_min(_SAME)[:, None]).clamp_max(1) ** _SHARPNESS
    return own - weights @ doubts / (_NEW + weights.sum(1))


class Curious:
    """Plays one episode: takes the action whose next frame is of most `interest`, as the run imagines it.

    Follows one session, which observes every real frame. Nothing is kept for the next episode.
    """

    def __init__(self, run: Run, own: OwnActions, candidates: Sequence[int], seed: int) -> None:
        self._run, self._own, self._ids, self._seed = run, own, torch.tensor(candidates), seed
        self._generator = torch.Generator().manual_seed(seed)
        self._session: Session | None = None
        self._seen, self._doubts = list[Tensor](), list[float]()

    def __call__(self, frames: Sequence[Tensor], actions: Sequence[Any]) -> Any:
        session = self._observed(frames)
        candidates = self._candidates()
        branch = session.fork(len(candidates) * FUTURES)
        branch.step(candidates.repeat_interleave(FUTURES, 0))
        futures = branch.tokens.flatten(1).unflatten(0, (len(candidates), FUTURES)).cpu()
        seen = torch.stack(self._seen) if self._seen else futures.new_empty(0, futures.shape[2])
        worth = interest(futures, seen, torch.tensor(self._doubts, dtype=torch.float64))
        # Of equal ones any may be taken, not always the first.
        best = (worth >= worth.max() - _SAME).nonzero()[:, 0]
        choice = best[torch.randint(len(best), (), generator=self._generator)]
        self._taken = candidates[choice]
        self._expected = float(doubt(futures)[choice])
        return self._own(self._taken)

    def _observed(self, frames: Sequence[Tensor]) -> Session:
        """Return the session after the last frame, whose doubt was that of the action that led to it."""
        if self._session is None:
            # At temperature 1 futures differ as much as the run is in doubt.
            self._session = self._run.session(frames[-1][None], seed=self._seed, temperature=1.0)
            return self._session
        self._session.observe(frames[-1], self._taken)
        self._seen.append(self._session.tokens[0].flatten().cpu())
        self._doubts.append(self._expected)
        return self._session

    def _candidates(self) -> Tensor:
        """Return the actions that may be taken: int64 (A,), or float32 (A, D) drawn between those the run knows."""
        space = self._run.layout.actions
        assert space is not None
        if space.kind == "discrete":
            return self._ids
        low, high = space.bounds()
        return low + (high - low) * torch.rand(CANDIDATES, len(low), generator=self._generator)


def curious(setup: Setup) -> Policy:
    """Make a policy that is curious about what `run` predicts.

    Raises FramepredError without a run, and for one of other sizes or other actions than the environment's.
    """
    env, run = setup.env, setup.run
    if run is None:
        raise FramepredError("policy 'curious' asks a run what it predicts badly: give one, --model RUN")
    if run.tokenizer.frame_size != env.size:
        wanted, given = ("x".join(map(str, size)) for size in (run.tokenizer.frame_size, env.size))
        raise FramepredError(f"size {given} is not what the run {run.path} predicts: give --size {wanted}")
    if (fit := fit_of(run.tokenizer.frame_size)) != fit_of(env.size):
        raise FramepredError(f"fit {fit_of(env.size)} is not that of the run {run.path}: give --fit {fit}")
    space = run.layout.actions
    own = OwnActions(env, space)
    assert space is not None
    _check_names(setup, space)
    ids = [i for i in range(space.count) if setup.ids is None or own(torch.tensor(i)) in setup.ids]
    if abs(env.fps / run.fps - 1) > 0.05:
        said = f"{env.name} is recorded at {say_rate(env.fps)}, the run predicts {say_rate(run.fps)}: its doubt is off"
        warnings.warn(FramepredWarning(said), stacklevel=1)
    return Curious(run, own, ids, setup.seed)


def _check_names(setup: Setup, space: ActionSpace) -> None:
    """Raise FramepredError where the environment names an action, which may be taken, that the run does not know."""
    known, names = values_of(space.names), setup.env.action_names
    for i, name in enumerate(names or ()):
        if known and name not in known and (setup.ids is None or i in setup.ids):
            raise FramepredError(
                f"{setup.env.name} has action {name}, which the run does not know; it knows {', '.join(known)}: "
                "give a run that was trained on this environment"
            )
