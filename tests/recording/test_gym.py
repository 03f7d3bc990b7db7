"""Recording an environment: what frame t + 1 shows is what action t did, and the same seed records the same."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from recording_worlds import Painter, Runner, registered  # noqa: E402

from framepred.errors import FramepredError  # noqa: E402
from framepred.recording.environment import open_environment  # noqa: E402
from framepred.recording.gym import Recording, record  # noqa: E402
from framepred.sources.actions_csv import read_actions  # noqa: E402
from framepred.sources.folder import find_videos  # noqa: E402
from framepred.video.read import read_video  # noqa: E402


class Nested(Painter):
    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(render_mode)
        self.action_space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})


class Blind(Painter):
    def render(self) -> None:
        return None


_ENVS = {
    "test/Painter-v0": (Painter, {}),
    "test/Short-v0": (Painter, {"length": 7}),
    "test/Continuous-v0": (Painter, {"continuous": True}),
    "test/Runner-v0": (Runner, {}),
    "test/Nested-v0": (Nested, {}),
    "test/Blind-v0": (Blind, {}),
}


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered(_ENVS):
        yield


def small(env: str, **more: Any) -> Recording:
    return Recording(env, **({"episodes": 2, "steps": 12, "size": (32, 32)} | more))


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("skip", [1, 3, None])
def test_frame_t_plus_1_shows_action_t(tmp_path: Path, skip: int | None) -> None:
    paths = list(record(small("test/Painter-v0", frame_skip=skip), tmp_path))
    assert [p.name for p in paths] == ["test-Painter-v0-000000.mp4", "test-Painter-v0-000001.mp4"]
    seen = set()
    for video in find_videos([tmp_path]):
        clip = read_video(video.path)
        actions, names = video.actions()
        assert (len(clip.frames), len(actions), names) == (13, 12, ("action",))
        # Lossless: the painted values come back exactly; None takes the skip nearest to 10 frames a second.
        assert clip.frames[1:, 0, 0, 0].tolist() == (actions * 50 + 10).tolist()
        assert clip.frames[:, 0, 17, 0].tolist() == [t * (skip or 2) for t in range(13)]
        assert clip.fps == pytest.approx(20 / (skip or 2))
        seen.update(actions.tolist())
    assert len(seen) > 1


def test_continuous_actions_are_recorded_as_taken(tmp_path: Path) -> None:
    list(record(small("test/Continuous-v0", sticky=0.0), tmp_path))
    for video in find_videos([tmp_path]):
        actions, names = video.actions()
        assert (actions.shape, actions.dtype, names) == ((12, 2), torch.float32, ("action_0", "action_1"))
        painted = read_video(video.path).frames[1:, 0, 0, 0].tolist()
        assert painted == [int(a * 200) for a in actions[:, 0]]


def test_an_episode_ends_with_the_frame_that_its_last_action_led_to(tmp_path: Path) -> None:
    (path, _) = record(small("test/Short-v0", frame_skip=1), tmp_path)
    actions, _ = read_actions(path.with_suffix(".actions.csv"))
    frames = read_video(path).frames
    assert (len(frames), len(actions)) == (8, 7)
    assert frames[1:, 0, 0, 0].tolist() == (actions * 50 + 10).tolist()


def test_the_same_seed_records_the_same_and_another_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 900)):
        list(record(small("test/Painter-v0", seed=seed), tmp_path / name))
    first, again, other = (files(tmp_path / n) for n in "abc")
    assert first == again
    assert not set(first.values()) & set(other.values())
    # Episode i is a function of (env, seed + i), whatever was recorded before it.
    list(record(small("test/Painter-v0", seed=6, episodes=1), tmp_path / "d"))
    name = "test-Painter-v0-000006.mp4"
    assert files(tmp_path / "d")[name] == first[name]


def test_existing_episodes_are_left_alone(tmp_path: Path) -> None:
    list(record(small("test/Painter-v0"), tmp_path))
    before = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*-v0-*")}
    (lost, _) = sorted(tmp_path.glob("*.mp4"))
    content = lost.read_bytes()
    lost.unlink()
    assert len(list(record(small("test/Painter-v0", episodes=3), tmp_path))) == 3
    assert lost.read_bytes() == content
    after = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*-v0-*")}
    assert len(after) == 6
    untouched = [p for p in before if not p.name.startswith(lost.stem)]
    assert len(untouched) == 2
    assert all(after[p] == before[p] for p in untouched)


def test_sticky_1_repeats_one_action_and_0_does_not(tmp_path: Path) -> None:
    list(record(small("test/Painter-v0", sticky=1.0, episodes=1), tmp_path / "a"))
    list(record(small("test/Painter-v0", sticky=0.0, episodes=1), tmp_path / "b"))
    same, mixed = (find_videos([tmp_path / n])[0].actions()[0] for n in "ab")
    assert len(set(same.tolist())) == 1
    assert len(set(mixed.tolist())) > 2


def test_actions_of_another_environment_are_matched_by_name(tmp_path: Path) -> None:
    list(record(small("test/Runner-v0", actions_of="test/Painter-v0", sticky=0.0, frame_skip=1), tmp_path))
    for video in find_videos([tmp_path]):
        actions, _ = video.actions()
        # Painter's ids: LEFT 1, JUMP 3; DUCK is unknown to it and never taken. Runner paints its own 2 and 0.
        assert set(actions.tolist()) == {1, 3}
        own = {1: 2, 3: 0}
        assert read_video(video.path).frames[1:, 0, 0, 0].tolist() == [own[a] * 50 + 10 for a in actions.tolist()]


def test_the_folder_says_how_it_was_recorded(tmp_path: Path) -> None:
    list(record(small("test/Painter-v0", seed=3), tmp_path))
    about = json.loads((tmp_path / "recording.json").read_text())
    assert (about["env"], about["seed"], about["frame_skip"]) == ("test/Painter-v0", 3, 2)
    assert about["actions"] == list(Painter.meanings)


def test_episodes_recorded_in_another_way_are_not_kept_in_silence(tmp_path: Path) -> None:
    first = small("test/Painter-v0")
    kept = {path: path.read_bytes() for path in record(first, tmp_path)}
    with pytest.raises(FramepredError, match=r"recorded with sticky 0.75, not 0.5: give another -o, or the same"):
        list(record(replace(first, sticky=0.5), tmp_path))
    with pytest.raises(FramepredError, match=r"recorded with size \[.*\], not \[16, 16\]"):
        list(record(replace(first, size=(16, 16)), tmp_path))
    more = list(record(replace(first, episodes=first.episodes + 1), tmp_path))
    assert len(more) == len(kept) + 1
    assert all(path.read_bytes() == data for path, data in kept.items())
    list(record(replace(first, seed=100, sticky=0.5), tmp_path))


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ("NoSuchEnv-v0", "cannot make environment 'NoSuchEnv-v0'"),
        ("no_such_module:Env-v0", "cannot make environment"),
        ("", "cannot make environment"),
        ("test/Nested-v0", "actions of Dict"),
        ("test/Blind-v0", "no RGB picture"),
    ],
)
def test_an_environment_that_cannot_be_recorded_is_refused_and_leaves_no_video(
    tmp_path: Path, env: str, says: str
) -> None:
    with pytest.raises(FramepredError, match=says) as caught:
        list(record(small(env), tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.mp4"))
    if "Blind" not in env:
        assert not (tmp_path / "out").exists()


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(FramepredError, match=r"framepred\[atari\]"):
        list(record(small("ALE/Breakout-v5"), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("env", "package", "name", "columns"),
    [("Crafter", "crafter", "place_stone", ("action",)), ("CarRacing-v3", "Box2D", None, ("steer", "gas", "brake"))],
)
def test_games_record_frames_and_actions(
    tmp_path: Path, env: str, package: str, name: str | None, columns: tuple[str, ...]
) -> None:
    pytest.importorskip(package)
    (path,) = record(Recording(env, episodes=1, steps=12, size=(64, 64), seed=3, sticky=0.5), tmp_path / "a")
    clip = read_video(path)
    actions, given = read_actions(path.with_suffix(".actions.csv"))
    assert tuple(given) == columns
    assert clip.frames.shape == (13, 3, 64, 64)
    assert len(actions) == 12
    assert clip.fps == pytest.approx(10)
    assert clip.frames.float().std() > 10
    assert not torch.equal(clip.frames[0], clip.frames[-1])
    names = json.loads((tmp_path / "a" / "recording.json").read_text())["actions"]
    assert name is None or name in names


def test_environments_that_share_no_action_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FramepredError, match="does not name its actions"):
        list(record(small("test/Painter-v0", actions_of="CartPole-v1"), tmp_path / "out"))


def test_vizdoom_records_frames_and_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    recording = Recording("VizdoomMyWayHome-v1", episodes=1, steps=10, size=(64, 64))
    (path,) = record(recording, tmp_path / "a")
    clip = read_video(path)
    actions, _ = read_actions(path.with_suffix(".actions.csv"))
    assert clip.frames.shape == (11, 3, 64, 64)
    assert (len(actions), actions.dtype) == (10, torch.int64)
    assert clip.fps == pytest.approx(8.75)
    assert clip.frames.float().std() > 10
    assert any(not torch.equal(clip.frames[t], clip.frames[t + 1]) for t in range(10))
    about = json.loads((tmp_path / "a" / "recording.json").read_text())
    assert "NOOP" in about["actions"]
    list(record(recording, tmp_path / "b"))
    assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
    assert list((tmp_path / "here").iterdir()) == []


def test_a_car_is_drawn_where_a_frame_is_kept_and_at_the_end() -> None:
    pytest.importorskip("Box2D")
    name = "CarRacingShort-v0"
    gymnasium.register(name, "gymnasium.envs.box2d.car_racing:CarRacing", max_episode_steps=7)
    try:
        plain, drawn = gymnasium.make(name, render_mode="rgb_array"), list[Any]()
        action = plain.action_space.high
        drawn.append(plain.reset(seed=4)[0])
        drawn += [plain.step(action)[0] for _ in range(7)]
        plain.close()
        with open_environment(name, (96, 96), 3) as env:
            shown = [env.reset(4)]
            while not (made := env.step(action))[1]:
                assert made[0] is not None
                shown.append(made[0])
            assert made[0] is not None
            shown.append(made[0])
    finally:
        del gymnasium.registry[name]
    expected = [torch.from_numpy(drawn[i]).permute(2, 0, 1) for i in (0, 3, 6, 7)]
    assert len({frame.numpy().tobytes() for frame in expected}) == 4
    assert torch.equal(torch.stack(shown), torch.stack(expected))
