"""Counterfactual actions: real futures are those of the environment, and the measures are what they say."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.replay import compare, replay, summary, true_branches
from framepred.evaluation.tables import counterfactual_table
from framepred.sequence.actions import ActionSpace
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.video.write import write_video
from framepred.world.run import load_run

SIZE = (16, 16)
THREE = ActionSpace("discrete", ("action",), 3)


class Walk:
    """An environment whose frame shows its seed and the sum of its actions; it ends after `last` steps."""

    name, size = "walk", SIZE

    def __init__(self, last: int = 100, drift: int = 0) -> None:
        self.last, self.drift = last, drift

    def reset(self, seed: int) -> Tensor:
        self.place, self.count = seed % 50, 0
        return self.frame()

    def step(self, action: int) -> tuple[Tensor, bool]:
        self.place, self.count = self.place + action + self.drift, self.count + 1
        return self.frame(), self.count >= self.last

    def frame(self) -> Tensor:
        return torch.full((3, *SIZE), self.place * 2, dtype=torch.uint8)


def recorded(folder: Path, seed: int = 7) -> Path:
    env: Any = Walk()
    actions = torch.tensor([2, 0, 1, 2, 2, 1])
    frames = torch.stack([env.reset(seed), *(env.step(int(a))[0] for a in actions)])
    path = folder / f"walk-{seed:06d}.mp4"
    write_video(path, frames, 10.0, lossless=True)
    write_actions(actions_path(path), actions, ["action"])
    return path


def test_branches_are_what_each_action_really_leads_to(tmp_path: Path) -> None:
    found = true_branches(Walk(), recorded(tmp_path), THREE, int, 3, 4)  # type: ignore[arg-type]
    assert found is not None
    assert found.actions.tolist() == [2, 0]
    assert found.context[:, 0, 0, 0].tolist() == [14, 18, 18]
    for action in range(3):
        assert found.futures[action, :, 0, 0, 0].tolist() == [2 * (9 + action * (t + 1)) for t in range(4)]


def test_branches_are_in_the_order_of_the_runs_actions(tmp_path: Path) -> None:
    found = true_branches(Walk(), recorded(tmp_path), THREE, lambda a: [2, 0, 1][int(a)], 3, 4)  # type: ignore[arg-type]
    assert found is not None
    assert found.actions.tolist() == [0, 1]
    assert found.futures[:, 0, 0, 0, 0].tolist() == [2 * (9 + action) for action in (2, 0, 1)]


def test_branches_begin_where_the_protocol_says(tmp_path: Path) -> None:
    found = true_branches(Walk(), recorded(tmp_path), THREE, int, 3, 2, start=2)  # type: ignore[arg-type]
    assert found is not None
    assert found.actions.tolist() == [1, 2]
    assert found.context[:, 0, 0, 0].tolist() == [18, 20, 24]
    assert found.futures[:, :, 0, 0, 0].tolist() == [[24, 24], [26, 28], [28, 32]]


def test_of_continuous_actions_one_number_is_held_at_its_least_or_most(tmp_path: Path) -> None:
    path, env = recorded(tmp_path), Walk()
    write_actions(actions_path(path), torch.tensor([[2.0, 9], [0, 9], [1, 9], [2, 9], [2, 9], [1, 9]]), ["go", "other"])
    centres, edges = ((0.0, 1.0, 3.0), (5.0, 9.0)), ((0.5, 2.0), (7.0,))
    space = ActionSpace("continuous", ("go", "other"), edges=edges, centres=centres)
    found = true_branches(env, path, space, lambda row: int(row[0]), 3, 2)  # type: ignore[arg-type]
    assert found is not None
    assert found.held.tolist() == [[0, 9], [3, 9], [0, 5], [0, 9]]
    assert found.futures[:, -1, 0, 0, 0].tolist() == [18, 30, 18, 18]


def test_an_action_that_the_run_does_not_know_is_named(tmp_path: Path) -> None:
    with pytest.raises(FramepredError, match="has the action 2, which the run does not know"):
        true_branches(Walk(), recorded(tmp_path), ActionSpace("discrete", ("a",), 2), int, 3, 4)  # type: ignore[arg-type]


def test_a_branch_that_ends_is_left_out_and_another_environment_is_refused(tmp_path: Path) -> None:
    path = recorded(tmp_path)
    assert true_branches(Walk(last=6), path, THREE, int, 3, 4) is not None  # type: ignore[arg-type]
    assert true_branches(Walk(last=5), path, THREE, int, 3, 4) is None  # type: ignore[arg-type]
    with pytest.raises(FramepredError, match="does not play it again as it was recorded"):
        true_branches(Walk(drift=1), path, THREE, int, 3, 4)  # type: ignore[arg-type]


def test_the_truth_goes_the_right_way_and_is_nearest_to_itself() -> None:
    true = torch.randint(0, 256, (4, 3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    way, nearer = compare(true, true)
    assert way.shape == nearer.shape == (4, 3)
    assert bool((way == 1).all()) and bool((nearer == 1).all())
    # With the futures of the actions in a ring, each prediction is another action's.
    _, wrong = compare(true.roll(1, 0), true)
    assert bool((wrong < 1).all())
    _, ignored = compare(true[:1].expand(4, -1, -1, -1, -1), true)
    # A picture that does not depend on the action is the right one for one action, and for no other beside that.
    assert bool((ignored[0] == 1).all()) and float(ignored.mean()) <= 0.75


def test_actions_that_lead_to_the_same_are_not_compared() -> None:
    true = torch.zeros(3, 2, 3, 8, 8, dtype=torch.uint8)
    true[2] = 200
    made = true.clone()
    made[0] = 90
    _, nearer = compare(made, true)
    # Actions 0 and 1 lead to the same: only action 2 is another future.
    assert nearer[:, 0].tolist() == [1, 1, 1]
    way, nearer = compare(made, torch.zeros_like(true))
    assert bool(way.isnan().all()) and bool(nearer.isnan().all())
    found = summary([compare(made, torch.zeros_like(true)), compare(true, true)])
    assert found["own_future"]["all"] == [1.0, 1.0]
    headers, rows = counterfactual_table(found | {"actions": ["a", "b", "c"]})
    assert (headers[1], rows[-1][0], rows[-1][1]) == ("right way +1", "all", "100%")


def test_what_cannot_be_played_again_says_so(tmp_path: Path, tiny_run: Path) -> None:
    with pytest.raises(FramepredError, match=r"has no recording\.json: --replay plays what framepred record wrote"):
        next(replay(load_run(tiny_run), str(tmp_path), Protocol()))
