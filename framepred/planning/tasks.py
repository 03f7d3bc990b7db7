"""Goals in an environment: what a random policy reaches after some steps, and whether a plan has reached it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.planning.proposals import first_proposal
from framepred.planning.protocol import GoalProtocol
from framepred.recording.environment import Environment
from framepred.recording.matching import OwnActions
from framepred.sequence.actions import ActionSpace
from framepred.world.goal import pixel_distance

Place = tuple[float, float, float]
"""Position x and y in the game's units, and angle in degrees."""


@dataclass(frozen=True)
class Task:
    """A start and a goal. `actions` (B, …) lead from the reset to the start, `way` (K, …) from there to the goal.

    `frames` uint8 (C, 3, H, W) are the last ones up to the start, `goal` (3, H, W) is the picture to reach.
    """

    seed: int
    actions: Tensor
    frames: Tensor
    way: Tensor
    goal: Tensor
    place: Place | None


class Simulator:
    """An environment that takes a run's actions, and can be taken back to where they led."""

    def __init__(self, env: Environment, space: ActionSpace | None) -> None:
        self._env, self._own = env, OwnActions(env, space)

    def place(self) -> Place | None:
        return self._env.place()

    def begin(self, seed: int, actions: Sequence[Tensor] | Tensor) -> Tensor:
        """Start the episode of a seed and take actions: uint8 (T + 1, 3, H, W), fewer where it ends."""
        return torch.stack([self._env.reset(seed), *self.take(actions)])

    def take(self, actions: Sequence[Tensor] | Tensor) -> Iterator[Tensor]:
        """Take actions, yielding the frame that each led to, until there is none."""
        for action in actions:
            frame, ended = self._env.step(self._own(action))
            if frame is not None:
                yield frame
            if ended:
                return

    def step(self, action: Tensor) -> Tensor | None:
        return next(self.take([action]), None)

    def replay(self, task: Task) -> Callable[[Sequence[Tensor]], Tensor]:
        """Return what takes actions from a task's start and gives the frames that they led to."""

        def frames(actions: Sequence[Tensor]) -> Tensor:
            before = len(task.actions) + 1
            return self.begin(task.seed, [*task.actions, *actions])[before:]

        return frames


def make_tasks(simulator: Simulator, space: ActionSpace | None, protocol: GoalProtocol, steps: int) -> Iterator[Task]:
    """Yield the protocol's tasks whose goals are so many steps away; those reached at the start are passed over.

    A task is a function of the protocol and its seed.
    """
    found, seed = 0, protocol.first_seed
    while found < protocol.goals:
        task = make_task(simulator, space, protocol, steps, seed)
        if task is not None:
            found += 1
            yield task
        seed += 1


def make_task(
    simulator: Simulator, space: ActionSpace | None, protocol: GoalProtocol, steps: int, seed: int
) -> Task | None:
    """Return the task of a seed; None where its episode ends too early or its goal is reached at the start."""
    generator = torch.Generator().manual_seed(seed)
    taken = first_proposal(space, protocol.before + steps, protocol.sticky).draw(generator, 1)[0]
    before, way = taken[: protocol.before], taken[protocol.before :]
    frames = simulator.begin(seed, before)
    if len(frames) <= protocol.before:
        return None
    start, given = simulator.place(), frames[-protocol.context :]
    shown = [*given, *simulator.take(way)]
    if len(shown) < len(given) + steps:
        return None
    task = Task(seed, before, given, way, shown[-1], simulator.place())
    return None if steps and is_reached(task, protocol, start, given[-1]) else task


def is_reached(task: Task, protocol: GoalProtocol, place: Place | None, frame: Tensor) -> bool:
    """Whether a goal is reached: by the place where the game tells it, else by the picture."""
    if task.place is None or place is None:
        return float(pixel_distance(task.goal)(frame[None])) <= protocol.near
    away = math.dist(task.place[:2], place[:2])
    turned = abs((task.place[2] - place[2] + 180) % 360 - 180)
    return away <= protocol.reach and turned <= protocol.turn
