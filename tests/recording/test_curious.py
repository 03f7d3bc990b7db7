"""Curiosity: interest in doubt that is new, none in noise that was looked at, shown in rooms with a television."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("gymnasium")

from recording_worlds import Painter, Rooms, fake_run, imagine_rooms, registered

from framepred.recording import curious
from framepred.recording.curious import CANDIDATES, FUTURES, Curious, doubt, interest
from framepred.recording.environment import open_environment
from framepred.recording.gym import Recording, record
from framepred.recording.matching import OwnActions
from framepred.sequence.actions import ActionSpace
from framepred.sources.folder import find_videos


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered({"test/Rooms-v0": (Rooms, {}), "test/Numbers-v0": (Painter, {"continuous": True})}):
        yield


def drawn(seed: int, *shape: int, high: int = 64) -> torch.Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed))


def test_doubt_is_the_chance_that_two_futures_differ_in_a_token() -> None:
    same = drawn(0, 1, 1, 20).expand(1, 4, 20)
    half = torch.cat([same[..., :10], torch.arange(4).view(1, 4, 1).expand(1, 4, 10)], 2)
    pair = torch.tensor([[[7], [7], [7], [9]]])
    assert doubt(torch.cat([same, half])).tolist() == [0.0, 0.5]
    assert doubt(pair).tolist() == [0.5]
    # Not biased by how few futures there are: 1 - sum of p squared.
    many = torch.stack([doubt(drawn(i, 1, 4, 64, high=5)) for i in range(200)])
    assert float(many.mean()) == pytest.approx(0.8, abs=0.01)


def test_interest_in_static_fades_and_other_doubt_keeps_its_own() -> None:
    # Two places of 64 tokens. Half of the first is static, a tenth of the second is in doubt.
    wall, other = drawn(1, 64), drawn(2, 64)

    def static(seed: int, count: int) -> torch.Tensor:
        return torch.cat([wall[:32].expand(count, 32), drawn(seed, count, 32)], 1)

    def unsure(seed: int, count: int) -> torch.Tensor:
        return torch.cat([other[:58].expand(count, 58), drawn(seed, count, 6)], 1)

    futures = torch.stack([static(3, 8), unsure(4, 8)])
    own = doubt(futures)
    worth = [interest(futures, static(5, n), own[0].expand(n)) for n in (0, 1, 5, 50)]
    assert torch.equal(worth[0], own) and own[0] > 4 * own[1]
    tv, new = (torch.stack(worth)[:, i].tolist() for i in (0, 1))
    # One look leaves a fifth of it.
    assert tv == pytest.approx([float(own[0]) / (4 * n + 1) for n in (0, 1, 5, 50)], rel=0.35)
    assert tv == sorted(tv, reverse=True) and tv[2] < new[2]
    assert new == pytest.approx([float(own[1])] * 4, rel=0.05)
    # What was met without doubt, and is in doubt now, is of more interest than static that was met as often.
    calm = interest(futures[1:], unsure(6, 50), torch.zeros(50, dtype=torch.float64))
    assert float(calm) == pytest.approx(float(own[1])) and float(calm) > tv[-1]


def rooms_of(folder: Path) -> list[int]:
    frames = find_videos([folder])[0].read((32, 32), with_actions=False).frames
    return (frames[:, 0, 0, 0].long() // 30).tolist()


@pytest.mark.parametrize(("seed", "start"), [(0, 0), (1, 0), (2, Rooms.TELEVISION), (3, Rooms.TELEVISION)])
def test_a_television_of_static_does_not_trap_the_curious(
    tmp_path: Path, seed: int, start: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rooms, "START", start)
    run = fake_run(tmp_path, imagine_rooms, ActionSpace("discrete", ("action",), 3))
    recording = Recording("test/Rooms-v0", 1, 80, (32, 32), seed=seed, policy="curious")
    list(record(recording, tmp_path / "curious", run))
    # Doubt alone: the same policy, which gets used to nothing.
    monkeypatch.setattr(curious, "interest", lambda futures, seen, doubts: doubt(futures))
    list(record(recording, tmp_path / "trapped", run))
    visited, trapped = rooms_of(tmp_path / "curious"), rooms_of(tmp_path / "trapped")
    assert trapped[1:] == [Rooms.TELEVISION] * 80
    assert len(set(visited)) >= 6
    assert visited.count(Rooms.TELEVISION) < len(visited) / 2


def test_continuous_actions_are_drawn_between_those_that_the_run_knows(tmp_path: Path) -> None:
    space, asked = ActionSpace("continuous", ("x", "y"), edges=((0.25, 0.5), (0.5, 0.75))), list[Any]()

    def imagine(tokens: torch.Tensor, action: torch.Tensor, _: Any) -> Any:
        asked.append(action)
        return tokens.numpy()

    with open_environment("test/Numbers-v0", (32, 32)) as env:
        policy = Curious(fake_run(tmp_path, imagine, space), OwnActions(env, space), (), seed=3)
        frames, actions = [torch.zeros(3, 32, 32, dtype=torch.uint8)], list[Any]()
        for _ in range(20):
            actions.append(policy(frames, actions))
            frames.append(frames[0])
            assert env.action_space.contains(actions[-1])
    low, high = space.bounds()
    tried = torch.stack(asked).view(20, CANDIDATES, FUTURES, 2)
    assert bool((tried == tried[:, :, :1]).all()) and bool(((low <= tried) & (tried <= high)).all())
    for action, candidates in zip(actions, tried[:, :, 0], strict=True):
        assert bool((torch.from_numpy(action) == candidates).all(1).any())
