"""Counterfactual actions: a recorded environment is played again under each action, and the run is asked the same.

From one moment every action is held for the horizon, really and in prediction. Needs the recording's Gymnasium
environment, and that it plays an episode again as it was recorded.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.config.frame_size import FrameSize
from framepred.errors import FramepredError
from framepred.evaluation.futures import sampling_of
from framepred.evaluation.protocol import Protocol
from framepred.io.files import read_json
from framepred.io.progress import Progress
from framepred.recording.environment import Environment, open_environment
from framepred.recording.matching import OwnActions
from framepred.sequence.actions import ActionSpace
from framepred.sources.actions import order_actions
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.sources.folder import find_videos
from framepred.video.resize import fit_frames
from framepred.world.run import Run

Own = Callable[[Tensor], Any]
"""Turns an action of a run, int64 () or float32 (D,), into the environment's own."""


@dataclass(frozen=True)
class Branches:
    """A moment and what A actions lead to: context uint8 (C, 3, H, W), the C - 1 actions in it.

    `held` (A,) or (A, D) are the actions, `futures` uint8 (A, T, 3, H, W) the frames.
    """

    context: Tensor
    actions: Tensor
    held: Tensor
    futures: Tensor


def replay(run: Run, source: str, protocol: Protocol) -> Iterator[Progress | dict[str, Any]]:
    """Compare a run with the real futures after each action, of each episode of a folder that `record` wrote.

    Yields progress, and at last strict JSON values. Raises FramepredError where the folder cannot be played again, or
    the run does not know its actions.
    """
    about, space = _recording(Path(source)), run.layout.actions
    videos = [video.path for video in find_videos([source])][: protocol.max_clips or None]
    scores: list[tuple[Tensor, Tensor]] = []
    with open_environment(about["env"], FrameSize(about["size"], about.get("fit", "crop")), about["frame_skip"]) as env:
        own = OwnActions(env, space)
        assert space is not None
        for done, path in enumerate(videos, 1):
            found = true_branches(env, path, space, own, protocol.context, protocol.horizon, protocol.start)
            if found is not None:
                scores.append(compare(predict_branches(run, found, protocol), _fitted(run, found.futures)))
            yield Progress(done, len(videos), f"{path.stem}, each action")
        names = _names(env, space, own)
    if not scores:
        raise FramepredError(f"{source} has no episode that goes on under every action: give a smaller --horizon")
    yield {"env": about["env"], "clips": len(scores), "actions": names} | summary(scores)


def _names(env: Environment, space: ActionSpace, own: Own) -> list[str]:
    """Return what the actions that are held are called."""
    if space.kind == "continuous":
        return [f"{most} {name}" for name in space.names for most in ("least", "most")]
    return [env.action_names[i] if env.action_names else str(i) for i in _ids(space, own)]


def _ids(space: ActionSpace, own: Own) -> list[int]:
    """Return the environment's ids of the run's discrete actions, in the run's order."""
    return [int(own(torch.tensor(i))) for i in range(space.count)]


def _held(space: ActionSpace, given: Tensor) -> Tensor:
    """Return the actions that are held: each id; of continuous ones the last with one number at its least, or most."""
    if space.kind == "discrete":
        return torch.arange(space.count)
    low, high = space.bounds()
    rows = (given[-1] if len(given) else (low + high) / 2).repeat(2 * space.slots, 1)
    for d in range(space.slots):
        rows[2 * d, d], rows[2 * d + 1, d] = low[d], high[d]
    return rows


def _recording(folder: Path) -> dict[str, Any]:
    if not (folder / "recording.json").is_file():
        raise FramepredError(f"{folder} has no recording.json: --replay plays what framepred record wrote")
    about = read_json(folder / "recording.json", "recording")
    if about.get("actions_of"):
        raise FramepredError(f"{folder} was recorded with --actions-of: its actions cannot be played again")
    return about


def true_branches(
    env: Environment, video: Path, space: ActionSpace, own: Own, context: int, horizon: int, start: int = 0
) -> Branches | None:
    """Play an episode again up to the context from frame `start` on, then each action; None where it ends before.

    `own` turns a run's action into the environment's. Raises FramepredError where a replay does not show what was
    recorded.
    """
    seed, count = int(video.stem.rpartition("-")[2]), start + context
    given = _given(video, space, own)[: count - 1]
    recorded = find_videos([str(video)])[0].read(env.size, None, count, with_actions=False).frames
    held, futures = _held(space, given), []
    for action in held:
        frames = [env.reset(seed)]
        for taken in [*given, *[action] * horizon]:
            frame, ended = env.step(own(taken))
            if frame is None or (ended and len(frames) < count + horizon - 1):
                return None
            frames.append(frame)
        if not torch.equal(torch.stack(frames[:count]), recorded):
            raise FramepredError(f"{video}: {env.name} does not play it again as it was recorded: record it again")
        futures.append(torch.stack(frames[count:]))
    return Branches(recorded[start:], given[start:], held, torch.stack(futures))


def _given(video: Path, space: ActionSpace, own: Own) -> Tensor:
    """Return a recording's actions as the run knows them: the file has the environment's own."""
    file = actions_path(video)
    actions, names = read_actions(file)
    if space.kind == "continuous":
        return order_actions(actions, names, space.names, str(file))
    ids = _ids(space, own)
    if unknown := sorted({*actions.tolist()} - {*ids}):
        raise FramepredError(f"{file} has the action {unknown[0]}, which the run does not know: it knows {ids}")
    return torch.tensor([ids.index(action) for action in actions.tolist()], dtype=torch.int64)


def predict_branches(run: Run, branches: Branches, protocol: Protocol) -> Tensor:
    """Predict what each action leads to, held for the horizon: uint8 (A, T, 3, H, W)."""
    drawn, (count, horizon) = sampling_of(run, protocol), branches.futures.shape[:2]
    session = run.session(
        branches.context, branches.actions, count, drawn.seed, drawn.temperature, drawn.top_k, drawn.top_p
    )
    return torch.stack([session.step(branches.held).cpu() for _ in range(horizon)], 1)


def _fitted(run: Run, futures: Tensor) -> Tensor:
    size = run.tokenizer.frame_size
    return fit_frames(futures.flatten(0, 1), size).view(*futures.shape[:2], 3, *size)


def compare(predicted: Tensor, true: Tensor) -> tuple[Tensor, Tensor]:
    """Compare the predicted and the real futures of A actions, uint8 (A, T, 3, H, W) → two of float64 (A, T).

    The first is 1 where a prediction differs from the mean over the actions in the direction in which the real future
    does; the second the share of other actions whose real future is further from the prediction than its own is. NaN
    where the real futures do not differ.
    """
    made, real = (x.double().flatten(2) / 255 for x in (predicted, true))
    apart = real - real.mean(0)
    way = ((made - made.mean(0)) * apart).sum(-1) > 0
    way = torch.where(apart.abs().sum(-1) > 0, way.double(), math.nan)
    distance = (made[:, None] - real[None]).square().sum(-1)
    other = (real[:, None] != real[None]).any(-1)
    own = distance.diagonal().T[:, None]
    nearer = torch.where(other, (own < distance).double(), 0).sum(1) / other.sum(1)
    return way, nearer


def summary(scores: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Average comparisons over clips, for each action and for all: a value a frame, None where none differ."""
    found: dict[str, Any] = {}
    for name, parts in zip(("right_way", "own_future"), zip(*scores, strict=True), strict=True):
        values = torch.stack(parts)
        rows = [*values.nanmean(0), values.nanmean((0, 1))]
        shown = [[None if math.isnan(v) else round(v, 4) for v in row.tolist()] for row in rows]
        found[name] = {"by_action": shown[:-1], "all": shown[-1]}
    return json.loads(json.dumps(found, allow_nan=False))
