"""Goals in an environment that is known exactly: they are what is said, the simulator reaches them, chance does not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gymnasium")

from square import ID, draw, moved, registered

from framepred.config.action_names import ActionNames
from framepred.errors import FramepredError
from framepred.planning.protocol import GoalProtocol, load_goal_protocol
from framepred.planning.search import Search
from framepred.planning.tasks import Simulator, is_reached, make_task, make_tasks
from framepred.planning.trial import ROWS, attempt, try_task
from framepred.recording.environment import open_environment
from framepred.recording.matching import OwnActions
from framepred.sequence.actions import ActionSpace
from framepred.world.run import load_run

SPACE = ActionSpace("discrete", ("action",), 4)
PROTOCOL = GoalProtocol(
    env=ID, steps=(4,), goals=6, before=5, near=0.01, search=Search(horizon=5, candidates=24, rounds=3)
)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


def test_a_goal_is_what_the_random_way_from_the_start_reaches() -> None:
    with open_environment(ID, (64, 64)) as env:
        simulator = Simulator(env, SPACE)
        tasks = list(make_tasks(simulator, SPACE, PROTOCOL, 4))
        assert len(tasks) == 6 and len({task.seed for task in tasks}) == 6
        for task in tasks:
            env.reset(task.seed)
            corner = env._env.unwrapped.at
            places = moved(corner, task.actions.tolist())
            assert torch.equal(task.frames, torch.stack([draw(*at) for at in places[-4:]]))
            assert torch.equal(task.goal, draw(*moved(places[-1], task.way.tolist())[-1]))
            assert not torch.equal(task.goal, task.frames[-1])
            assert torch.equal(simulator.replay(task)([*task.way])[-1], task.goal)
            again = make_task(simulator, SPACE, PROTOCOL, 4, task.seed)
            assert again is not None and torch.equal(again.goal, task.goal) and torch.equal(again.way, task.way)


def test_the_simulator_reaches_what_chance_and_copying_do_not(tiny_run: Path) -> None:
    run = load_run(tiny_run)
    results: dict[str, list[Any]] = {row: [] for row in ROWS}
    with open_environment(ID, (64, 64)) as env, open_environment(ID, (64, 64)) as other:
        simulator, second = Simulator(env, SPACE), Simulator(other, SPACE)
        for task in make_tasks(simulator, SPACE, PROTOCOL, 4):
            for row in ("simulator", "copying", "random"):
                results[row].append(attempt(row, run, simulator, second, task, PROTOCOL))
        small = replace(PROTOCOL, search=Search(horizon=2, candidates=3, rounds=1))
        for row in ("model", "shuffled"):
            results[row].append(attempt(row, run, simulator, second, task, small))
    reached = {row: sum(each.reached for each in attempts) for row, attempts in results.items()}
    assert reached["simulator"] == 6 and reached["random"] <= 2 and reached["copying"] <= 2
    assert all(each.steps <= 4 for each in results["simulator"])
    assert all(each.steps <= 8 and (each.reached or each.steps == 8) for row in ROWS for each in results[row])
    # Random actions are one sequence, which is drawn once.
    assert {each.plans for each in results["random"]} == {1}
    assert {len(results[row]) for row in ("model", "shuffled")} == {1}


def test_chance_does_not_take_the_actions_that_set_the_goal_again(tiny_run: Path) -> None:
    run, same, protocol = load_run(tiny_run), 0, replace(PROTOCOL, before=4, budget=1.0, near=1e-6)
    with open_environment(ID, (64, 64)) as env:
        simulator = Simulator(env, SPACE)
        for task in make_tasks(simulator, SPACE, protocol, 4):
            taken = [int(s.action) for s in try_task("random", run, simulator, simulator, task, protocol, 4)]
            same += taken in (task.actions.tolist()[: len(taken)], task.way.tolist()[: len(taken)])
    assert same <= 1


def test_an_episode_that_ends_before_its_goal_sets_none() -> None:
    with open_environment("test/Short-v0", (64, 64)) as env:
        simulator = Simulator(env, SPACE)
        assert make_task(simulator, SPACE, replace(PROTOCOL, before=20), 4, 1) is None
        assert make_task(simulator, SPACE, replace(PROTOCOL, before=16), 4, 1) is None
        assert any(make_task(simulator, SPACE, replace(PROTOCOL, before=12), 4, seed) for seed in range(3))
        frames = simulator.begin(0, torch.zeros(40, dtype=torch.int64))
        assert len(frames) == 19


def test_a_place_counts_where_the_game_tells_it() -> None:
    with open_environment(ID, (64, 64)) as env:
        task = next(make_tasks(Simulator(env, SPACE), SPACE, PROTOCOL, 4))
    task, frame = replace(task, place=(100.0, 50.0, 355.0)), task.frames[-1]
    for place, expected in {
        (100.0, 50.0, 355.0): True, (112.0, 66.0, 355.0): True, (112.0, 67.0, 355.0): False,
        (100.0, 50.0, 9.0): True, (100.0, 50.0, 11.0): False, (100.0, 50.0, 341.0): True,
    }.items():  # fmt: skip
        assert is_reached(task, PROTOCOL, place, frame) == expected
    assert is_reached(task, PROTOCOL, None, task.goal) and not is_reached(task, PROTOCOL, None, frame)


def test_doom_tells_the_place_and_its_replays_are_exact() -> None:
    pytest.importorskip("vizdoom")
    space, protocol = replace(SPACE, count=6), load_goal_protocol()
    with open_environment(protocol.env, (64, 64)) as env:
        simulator = Simulator(env, space)
        (task,) = make_tasks(simulator, space, replace(protocol, goals=1), 8)
        assert task.place is not None
        assert torch.equal(simulator.replay(task)([*task.way])[-1], task.goal)
        assert simulator.place() == task.place and is_reached(task, protocol, simulator.place(), task.goal)


def test_protocols_are_data() -> None:
    protocol = load_goal_protocol(settings=["goals=3", "search.candidates=9"])
    assert (protocol.goals, protocol.search.candidates, protocol.steps) == (3, 9, (4, 8, 16))
    assert protocol.sha256 != load_goal_protocol().sha256 and "goals = 3" in protocol.about
    for setting, says in (("goals=0", "goals = 0"), ("turn=181.0", "turn = 181"), ("nothing=1", "unknown key nothing")):
        with pytest.raises(FramepredError, match=says):
            load_goal_protocol(settings=[setting])


def test_an_environment_whose_actions_the_run_does_not_know_is_refused() -> None:
    with open_environment("test/Five-v0", (64, 64)) as env:
        with pytest.raises(FramepredError, match=r"test/Five-v0 takes Discrete\(5\), the run knows 4 discrete ids"):
            Simulator(env, SPACE)
        with pytest.raises(FramepredError, match="the run was trained without actions"):
            Simulator(env, None)
        named = replace(SPACE, count=2, names=ActionNames(("action",), ("JUMP", "LEFT")))
        assert [OwnActions(env, named)(torch.tensor(i)) for i in range(2)] == [4, 0]
        other = replace(SPACE, count=2, names=ActionNames(("action",), ("LEFT", "FLY")))
        with pytest.raises(FramepredError, match="test/Five-v0 has no action FLY, which the run knows; it has LEFT"):
            OwnActions(env, other)
