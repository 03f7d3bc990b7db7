"""Searching and following: the nearest sequence is found, in few candidates, and what happens is what counts."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.planning.execute import follow_plans
from framepred.planning.proposals import first_proposal
from framepred.planning.search import Search, find_plan
from framepred.sequence.actions import ActionSpace

DISCRETE = ActionSpace("discrete", ("a",), count=4)
CONTINUOUS = ActionSpace("continuous", ("x", "y"), edges=((-1.0, 0.0, 1.0), (0.0, 2.0)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def away_from(wanted: Tensor) -> Any:
    """Judge by how much the actions so far differ from those wanted; what is to come counts as wrong."""

    def judge(actions: Tensor) -> Tensor:
        wrong = (actions != wanted).float() if wanted.ndim == 1 else (actions - wanted).abs().mean(-1) / 8
        done = torch.arange(1, len(wanted) + 1)
        return wrong.cumsum(1) + (len(wanted) - done)

    return judge


@pytest.mark.parametrize("space", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
def test_more_rounds_come_nearer_with_as_many_candidates(space: ActionSpace) -> None:
    low, high = (torch.zeros(2), torch.ones(2)) if space.kind == "discrete" else space.bounds()
    totals = dict.fromkeys((1, 4), 0.0)
    for seed in range(20):
        wanted = torch.randint(0, 4, (6,), generator=generator(seed))
        if space.kind == "continuous":
            wanted = low + (high - low) * torch.rand(6, 2, generator=generator(seed))
        for rounds in totals:
            search = Search(horizon=6, candidates=64 // rounds, rounds=rounds, sticky=0.0)
            found = find_plan(away_from(wanted), space, search, generator(seed))
            assert found.actions.shape == wanted.shape and found.distances.shape == (6,)
            assert torch.equal(found.distances, away_from(wanted)(found.actions[None])[0])
            if space.kind == "continuous":
                assert bool(((found.actions >= low) & (found.actions <= high)).all())
            totals[rounds] += float(found.distances[-1])
    assert totals[4] < 0.8 * totals[1]


def test_a_plan_ends_at_its_nearest_step_and_of_equals_is_the_longest() -> None:
    search = Search(horizon=5, candidates=3, rounds=1)
    distances = torch.tensor([[3.0, 2, 3, 3, 3], [3, 2, 1, 1, 4], [3, 1, 2, 2, 2]])
    drawn = first_proposal(DISCRETE, 5, search.sticky).draw(generator(), 3)
    found = find_plan(lambda actions: distances, DISCRETE, search, generator())
    assert torch.equal(found.actions, drawn[1, :4]) and found.distances.tolist() == [3, 2, 1, 1]
    same = find_plan(lambda actions: torch.ones(3, 5), DISCRETE, search, generator())
    assert torch.equal(same.actions, drawn[0])


@pytest.mark.parametrize(("sticky", "share"), [(0.0, 0.25), (0.75, 0.8125)])
def test_actions_repeat_as_often_as_asked(sticky: float, share: float) -> None:
    drawn = first_proposal(DISCRETE, 400, sticky).draw(generator(), 20)
    assert float((drawn[:, 1:] == drawn[:, :-1]).float().mean()) == pytest.approx(share, abs=0.02)
    assert drawn.unique().tolist() == [0, 1, 2, 3]


class Line:
    """A place on a line: action 1 goes on, all others stay. Its model thinks that action 2 goes on."""

    def __init__(self, wrong: bool = False) -> None:
        self.at, self.believed, self.good, self.seen = 0, 0, 2 if wrong else 1, list[int]()

    def judge(self, actions: Tensor) -> Tensor:
        return 10 - self.believed - (actions == self.good).float().cumsum(1)

    def observe(self, action: Tensor, frame: Tensor) -> None:
        self.believed = int(frame.sum())
        self.seen.append(int(action))

    def step(self, action: Tensor) -> Tensor | None:
        self.at += int(action == 1)
        return torch.full((1, 1, 1), self.at)


def test_plans_are_followed_until_the_goal_or_the_budget() -> None:
    search = Search(horizon=4, candidates=64, rounds=3, replan=2)
    line = Line()
    steps = list(follow_plans(line, line.step, lambda frame: int(frame) == 10, DISCRETE, search, 40))
    assert (len(steps), steps[-1].reached, steps[-1].plans) == (10, True, 5)
    assert [s.reached for s in steps[:-1]] == [False] * 9
    assert line.seen == [1] * 10 and [int(s.frame) for s in steps] == list(range(1, 11))
    assert [s.expected for s in steps] == list(range(9, -1, -1))
    wrong = Line(wrong=True)
    steps = list(follow_plans(wrong, wrong.step, lambda frame: int(frame) == 10, DISCRETE, search, 7))
    assert (len(steps), steps[-1].reached, wrong.at) == (7, False, 0)


def test_an_episode_that_ends_ends_the_plan() -> None:
    line, search = Line(), Search(horizon=4, candidates=8)
    taken = iter([torch.zeros(1, 1, 1), torch.zeros(1, 1, 1)])
    steps = list(follow_plans(line, lambda action: next(taken, None), lambda frame: False, DISCRETE, search, 9))
    assert len(steps) == 2


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"horizon": 0}, "horizon = 0 is not allowed; it must be a whole number from 1 to 1024"),
        ({"candidates": 5000}, "candidates = 5000 is not allowed"),
        ({"sticky": 1.0}, "sticky = 1.0 is not allowed; it must be 0 to below 1"),
        ({"elites": 0.0}, "elites = 0.0 is not allowed"),
        ({"temperature": -1.0}, "temperature = -1.0 is not allowed"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(FramepredError, match=says):
        replace(Search(), **values)


def test_a_run_without_actions_cannot_plan() -> None:
    with pytest.raises(FramepredError, match="trained without actions: a plan needs a run"):
        find_plan(lambda actions: actions.float(), None, Search(), generator())
