"""Counterfactual actions: a recorded environment is played again under each action, and the run is asked the same.

From one moment every action is held for the horizon, really and in prediction. Needs the recording's Gymnasium
environment, and that it plays an episode again as it was recorded.
"""

import json
import math
from collections.abc import Iterator, Sequence
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
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.sources.folder import find_videos
from framepred.video.resize import fit_frames
from framepred.world.run import Run


@dataclass(frozen=True)
class Branches:
    """A moment and what A actions lead to: context uint8 (C, 3, H, W), actions (C - 1,), futures (A, T, 3, H, W)."""

    context: Tensor
    actions: Tensor
    futures: Tensor


def replay(run: Run, source: str, protocol: Protocol) -> Iterator[Progress | dict[str, Any]]:
    """Compare a run with the real futures after each action, of each episode of a folder that `record` wrote.

    Yields progress, and at last strict JSON values. Raises FramepredError where the folder cannot be played again, or
    the run does not know its actions.
    """
    about = _recording(Path(source))
    space = run.layout.actions
    videos = [video.path for video in find_videos([source])][: protocol.max_clips or None]
    scores: list[tuple[Tensor, Tensor]] = []
    with open_environment(about["env"], FrameSize(about["size"], about.get("fit", "crop")), about["frame_skip"]) as env:
        count = getattr(env.action_space, "n", None)
        if space is None or space.kind != "discrete" or count is None or int(count) != space.count:
            raise FramepredError(
                f"{source}: {about['env']} and the run {run.path} do not have the same discrete actions"
            )
        own = OwnActions(env, space)
        ids = [int(own(torch.tensor(i))) for i in range(space.count)]
        names = [env.action_names[i] if env.action_names else str(i) for i in ids]
        for done, path in enumerate(videos, 1):
            found = true_branches(env, path, protocol.context, protocol.horizon, ids)
            if found is not None:
                scores.append(compare(predict_branches(run, found, protocol), _fitted(run, found.futures)))
            yield Progress(done, len(videos), f"{path.stem}, each action")
    if not scores:
        raise FramepredError(f"{source} has no episode that goes on under every action: give a smaller --horizon")
    yield {"env": about["env"], "clips": len(scores), "actions": names} | summary(scores)


def _recording(folder: Path) -> dict[str, Any]:
    if not (folder / "recording.json").is_file():
        raise FramepredError(f"{folder} has no recording.json: --replay plays what framepred record wrote")
    about = read_json(folder / "recording.json", "recording")
    if about.get("actions_of"):
        raise FramepredError(f"{folder} was recorded with --actions-of: its actions cannot be played again")
    return about


def true_branches(env: Environment, video: Path, context: int, horizon: int, ids: Sequence[int]) -> Branches | None:
    """Play an episode again up to its context and then each action; None where it ends before.

    `ids` are the environment's of the run's actions 0, 1, ...; the result is in the run's. Raises FramepredError where
    a replay does not show what was recorded.
    """
    seed, given = int(video.stem.rpartition("-")[2]), read_actions(actions_path(video))[0][: context - 1]
    recorded = find_videos([str(video)])[0].read(env.size, None, context, with_actions=False).frames
    futures = []
    for action in ids:
        frames = [env.reset(seed)]
        for taken in [*given.tolist(), *[action] * horizon]:
            frame, ended = env.step(taken)
            if frame is None or (ended and len(frames) < context + horizon - 1):
                return None
            frames.append(frame)
        if not torch.equal(torch.stack(frames[:context]), recorded):
            raise FramepredError(f"{video}: {env.name} does not play it again as it was recorded: record it again")
        futures.append(torch.stack(frames[context:]))
    return Branches(recorded, torch.tensor([ids.index(action) for action in given.tolist()]), torch.stack(futures))


def predict_branches(run: Run, branches: Branches, protocol: Protocol) -> Tensor:
    """Predict what each action leads to, held for the horizon: uint8 (A, T, 3, H, W)."""
    drawn, (count, horizon) = sampling_of(run, protocol), branches.futures.shape[:2]
    session = run.session(
        branches.context, branches.actions, count, drawn.seed, drawn.temperature, drawn.top_k, drawn.top_p
    )
    return torch.stack([session.step(torch.arange(count)).cpu() for _ in range(horizon)], 1)


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
