"""One attempt at a task: with the model, and with what it is compared to."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from framepred.planning.execute import Step, follow_plans
from framepred.planning.judges import Copied, Imagined, Shuffled, Simulated, World
from framepred.planning.protocol import GoalProtocol
from framepred.planning.tasks import Simulator, Task, is_reached
from framepred.world.goal import make_distance
from framepred.world.run import Run

Row = Literal["model", "simulator", "shuffled", "copying", "random"]
ROWS: tuple[Row, ...] = get_args(Row)
_APART = 1_000_003


@dataclass(frozen=True)
class Attempt:
    """Whether a goal was reached, in how many steps (those that were taken, where not), after how many plans.

    `seconds` is how long a plan took on the average; `processor` the same in this process's processor time.
    """

    reached: bool
    steps: int
    plans: int
    seconds: float
    processor: float

    def to_json(self) -> dict[str, Any]:
        return vars(self).copy()


def attempt(row: Row, run: Run, simulator: Simulator, other: Simulator, task: Task, protocol: GoalProtocol) -> Attempt:
    """Try to reach a task's goal; `other` is a second environment of the same kind, where the simulator is asked."""
    began, busy = time.perf_counter(), time.process_time()
    budget = max(1, round(protocol.budget * len(task.way)))
    steps = list(try_task(row, run, simulator, other, task, protocol, budget))
    plans = steps[-1].plans if steps else 1
    seconds, processor = time.perf_counter() - began, time.process_time() - busy
    reached = bool(steps) and steps[-1].reached
    return Attempt(reached, len(steps), plans, round(seconds / plans, 3), round(processor / plans, 3))


def try_task(
    row: Row, run: Run, simulator: Simulator, other: Simulator, task: Task, protocol: GoalProtocol, budget: int
) -> Iterator[Step]:
    """Yield the steps of an attempt, at most `budget`."""
    # Not the seed of the task's random policy, whose actions would be drawn again.
    search = replace(protocol.search, seed=protocol.search.seed + _APART * (task.seed + 1))
    if row == "random":
        # One sequence, which nothing is chosen from.
        search = replace(search, candidates=1, rounds=1, horizon=budget, replan=budget)
    simulator.begin(task.seed, task.actions)
    yield from follow_plans(
        _world(row, run, other, task, protocol), simulator.step,
        lambda frame: is_reached(task, protocol, simulator.place(), frame), run.layout.actions, search, budget,
    )  # fmt: skip


def _world(row: Row, run: Run, other: Simulator, task: Task, protocol: GoalProtocol) -> World:
    distance = make_distance(run, task.goal, protocol.search.distance)
    if row == "simulator":
        return Simulated(other.replay(task), distance)
    if row in ("copying", "random"):
        return Copied(task.frames[-1], distance)
    known = task.actions[len(task.actions) - len(task.frames) + 1 :]
    search = protocol.search
    session = run.session(task.frames, known, seed=search.seed + task.seed, temperature=search.temperature)
    return (Shuffled if row == "shuffled" else Imagined)(session, distance)
