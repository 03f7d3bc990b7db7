"""How alike two orders are, and that a model which is the game itself orders actions as the game does."""

import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("gymnasium")

from experiment import read_results
from planning.square import ID, registered

from framepred.planning.protocol import GoalProtocol
from framepred.planning.tasks import Simulator, make_tasks
from framepred.recording.environment import open_environment
from framepred.world.run import load_run

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "compare_imagination"), run_name="script")
PROTOCOL = GoalProtocol(env=ID, steps=(3,), goals=2, before=4, near=0.01)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


@pytest.mark.parametrize(
    ("a", "b", "wanted"),
    [([1.0, 5, 2, 9], [0.1, 0.3, 0.2, 99], 1.0), ([1.0, 2, 3], [3.0, 2, 1], -1.0), ([1.0, 1, 1], [1.0, 2, 3], 0.0),
     ([1.0, 1, 2, 2], [1.0, 2, 3, 4], 0.894)],
)  # fmt: skip
def test_rank_correlation(a: list[float], b: list[float], wanted: float) -> None:
    assert SCRIPT["rank_correlation"](torch.tensor(a), torch.tensor(b)) == pytest.approx(wanted, abs=0.001)


def test_a_model_that_is_the_game_orders_as_it_does_and_one_that_stands_still_moves_nothing(tiny_run: Path) -> None:
    run, actions = load_run(tiny_run), torch.tensor([[0, 0, 0], [1, 1, 1], [2, 3, 2], [0, 1, 0]])
    with open_environment(ID, (64, 64)) as env:
        simulator = Simulator(env, run.layout.actions)
        task = next(iter(make_tasks(simulator, run.layout.actions, PROTOCOL, 3)))
        real = SCRIPT["real_frames"](simulator, task, torch.cat([actions, task.way[None]]))
    # The last sequence is the way to the goal.
    found = SCRIPT["compare"](run, task, real, real)
    assert found["pixels"] == {"correlation": pytest.approx(1), "chosen": 0.0} and found["best"] == 0
    assert found["motion"] == pytest.approx(1) and found["features"]["chosen"] == 0
    still = SCRIPT["compare"](run, task, real, task.frames[-1].expand_as(real))
    assert still["pixels"]["correlation"] == still["motion"] == 0
    assert found["random"] == still["random"] > 0


def test_goals_are_compared_once(tiny_run: Path, tmp_path: Path) -> None:
    run = load_run(tiny_run)
    for temperatures in ((0.0,), (0.0, 1.0)):
        SCRIPT["goals"](tmp_path, run, PROTOCOL, 2, temperatures)
    results = read_results(tmp_path / "results.jsonl")
    assert [r["temperature"] for r in results] == [0.0, 0.0, 1.0, 1.0] and len({r["seed"] for r in results}) == 2
    lines = SCRIPT["table"](results).splitlines()
    assert [line.split(" | ")[:3] for line in lines[2:4]] == [["| 0", "pixels", "2"], ["| 0", "features", "2"]]
    assert (tmp_path / "films.png").is_file()
