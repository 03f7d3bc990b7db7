"""A start and a goal → a plan: imagined after a clip, or followed in an environment."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import writing
from framepred.planning.execute import Step
from framepred.planning.judges import Imagined
from framepred.planning.protocol import GoalProtocol
from framepred.planning.search import Search, find_plan
from framepred.planning.tasks import Simulator, make_task
from framepred.planning.trial import try_task
from framepred.recording.environment import open_environment
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episode
from framepred.video.write import write_video
from framepred.world.footage import given_actions, rate_of_run
from framepred.world.goal import Distance, check_goal, make_distance
from framepred.world.run import Run


@dataclass(frozen=True)
class Planned:
    """The start and what L actions led to, frames uint8 (L + 1, 3, H, W): imagined, or what really happened.

    `expected` and `distances` float32 (L,) are how far from the goal each was foreseen to be and is. `reached` says
    whether the goal was, None in imagination. `seconds` is what all `plans` took.
    """

    run: Run
    frames: Tensor
    actions: Tensor
    expected: Tensor
    distances: Tensor
    fps: float
    plans: int
    seconds: float
    reached: bool | None = None

    def summary(self) -> dict[str, Any]:
        """Return the facts as strict JSON values."""
        return {
            "model": str(self.run.path), "reached": self.reached,
            "steps": len(self.actions), "actions": self.actions.tolist(),
            "expected_distance": self.expected.tolist(), "distance": self.distances.tolist(),
            "plans": self.plans, "seconds_a_plan": self.seconds / max(1, self.plans),
        }  # fmt: skip


def plan_after(
    run: Run, frames: Tensor, actions: Tensor | None, goal: Tensor | Distance, search: Search, fps: float | None = None
) -> Planned:
    """Find a plan after frames uint8 (T, 3, H, W) and the T - 1 actions between them, in imagination alone.

    The goal is a picture uint8 (3, H, W), or a callable from frames uint8 (S, 3, H, W) to distances float32 (S,), 0
    where it is reached.
    """
    began, space = time.perf_counter(), run.layout.actions
    if isinstance(goal, Tensor):
        check_goal(run, goal, frames[-1])
    distance = make_distance(run, goal, search.distance) if isinstance(goal, Tensor) else goal
    session = run.session(frames, actions, seed=search.seed, temperature=search.temperature)
    plan = find_plan(Imagined(session, distance).judge, space, search, torch.Generator().manual_seed(search.seed))
    seconds = time.perf_counter() - began
    shown = torch.cat([frames[-1:], *(session.step(action).cpu() for action in plan.actions)])
    return Planned(run, shown, plan.actions, plan.distances, distance(shown[1:]), fps or run.fps, 1, seconds)


def plan_in_environment(
    run: Run, protocol: GoalProtocol, steps: int | None = None, goal: Tensor | None = None, budget: int = 32,
    watch: Callable[[Iterator[Step]], Iterator[Step]] = iter,
) -> Planned:  # fmt: skip
    """Plan in the protocol's environment and follow the plans, in the episode of its `first_seed`.

    The goal is a picture uint8 (3, H, W), or what a random policy reaches after so many `steps`. `watch` is given the
    steps as they are taken.
    """
    space, size = run.layout.actions, run.tokenizer.frame_size
    with open_environment(protocol.env, size) as env:
        simulator = Simulator(env, space)
        task = make_task(simulator, space, protocol, steps or 0, protocol.first_seed)
        if task is None:
            raise FramepredError(
                f"seed {protocol.first_seed} sets no goal in {protocol.env}: it is reached at the start, or the "
                "episode ends before; give another --seed"
            )
        if goal is not None:
            check_goal(run, goal, task.frames[-1])
            task = replace(task, goal=goal, place=None)
        began = time.perf_counter()
        taken = list(watch(try_task("model", run, simulator, simulator, task, protocol, budget)))
        seconds, fps = time.perf_counter() - began, env.fps
    if not taken:
        raise FramepredError(f"the episode of seed {protocol.first_seed} ends at the start: give another --seed")
    shown = torch.stack([task.frames[-1], *(s.frame for s in taken)])
    distance = make_distance(run, task.goal, protocol.search.distance)
    return Planned(
        run, shown, torch.stack([s.action for s in taken]), torch.tensor([s.expected for s in taken]),
        distance(shown[1:]), fps, taken[-1].plans, seconds, taken[-1].reached,
    )  # fmt: skip


def start_in_clip(run: Run, video: Path, actions: str | None, start: int, context: int) -> tuple[Tensor, Tensor | None]:
    """Return `context` frames of a video from number `start` on, and the actions between them."""
    file, stop = find_episode(video, actions), start + context
    given = given_actions(file, actions, run)
    frames = frame_range(run, file, start, stop, given is not None)
    known = given[0][start : stop - 1] if given else None
    if known is not None and len(known) < context - 1:
        raise FramepredError(f"{given[1] if given else ''} ends before frame {stop - 1}: give a row for each frame")
    return frames, known


def frame_range(run: Run, file: StoredEpisode, start: int, stop: int, with_actions: bool = False) -> Tensor:
    """Return frames uint8 (T, 3, H, W) of a video as the run sees it; FramepredError where it has too few.

    Those that are read `with_actions` are the video's own, whatever its rate.
    """
    rate = rate_of_run(file, run, with_actions)
    frames = file.read(run.tokenizer.frame_size, rate, stop, with_actions=False).frames
    if len(frames) < stop:
        raise FramepredError(f"{file.where} has {len(frames)} frames: there is no frame {stop - 1}")
    return frames[start:]


def write_plan(planned: Planned, out: Path) -> None:
    """Write the frames as a lossless video and the actions beside it, as `record` does."""
    space = planned.run.layout.actions
    assert space is not None
    # Both are whole before one of them replaces what was there.
    with writing(actions_path(out)) as temporary:
        write_actions(temporary, planned.actions, space.names)
        write_video(out, planned.frames, planned.fps, lossless=True)
