"""Writing back: a LeRobot dataset and a video folder give frames and values as they were."""

import json
import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from lerobot_set import FPS, LENGTHS, actions_of, frames_of, write_v21
from media import encode, shades

from framepred.cli import cli
from framepred.config.action_names import values_of
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes

CAMERA = "observation.images.main"


def framepred(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result.output if fails else result.stdout


def same(made: list[StoredEpisode], given: list[StoredEpisode]) -> None:
    """Compare frames, actions up to the last frame, names, times and captions."""
    assert len(made) == len(given)
    for a, b in zip(made, given, strict=True):
        (x, y), size = (a, b), (b.info().height, b.info().width)
        x, y = x.read(size), y.read(size)
        steps = len(y.frames) - 1
        assert torch.equal(x.frames, y.frames) and x.fps == y.fps and torch.allclose(x.times, y.times, atol=1e-5)
        assert torch.equal(x.actions[:steps], y.actions[:steps]) and x.action_names == y.action_names
        assert x.actions.dtype == y.actions.dtype
        said = [[(c.text, round(c.start, 2), round(c.end, 2)) for c in e.captions(y.times, y.fps)] for e in (a, b)]
        assert said[0] == said[1]


def test_lerobot_to_folder_and_back(tmp_path: Path) -> None:
    given = find_episodes([f"lerobot:{write_v21(tmp_path / 'v21', {'cam': 'image'})}"])
    framepred("convert", f"lerobot:{tmp_path / 'v21'}", "-o", tmp_path / "folder", "--to", "folder")
    same(find_episodes([tmp_path / "folder"]), given)
    framepred("convert", tmp_path / "folder", "-o", tmp_path / "v3", "--to", "lerobot")
    same(find_episodes([f"lerobot:{tmp_path / 'v3'}"]), given)


def test_discrete_actions_without_a_last_one(clips_dir: Path, tmp_path: Path) -> None:
    made = framepred("convert", clips_dir, "-o", tmp_path / "set", "--to", "lerobot", "--json")
    given = find_episodes([clips_dir])
    assert json.loads(made)["episodes"] == len(given)
    same(find_episodes([f"lerobot:{tmp_path / 'set'}"]), given)


def test_the_dataset_is_as_the_format_has_it(tmp_path: Path) -> None:
    """Read without framepred, as lerobot does."""
    write_v21(tmp_path / "v21", {"cam": "image"})
    root = tmp_path / "set"
    framepred("convert", f"lerobot:{tmp_path / 'v21'}", "-o", root, "--to", "lerobot")
    info = json.loads((root / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_episodes"], info["total_frames"]) == ("v3.0", 3, sum(LENGTHS))
    assert info["fps"] == FPS and info["features"]["action"]["names"] == ["x", "y", "gripper"]
    tasks = pandas.read_parquet(root / "meta/tasks.parquet")
    assert tasks.loc["lift it"].task_index == 1 and list(tasks.index) == ["push the cube", "lift it"]
    episodes = pq.read_table(root / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [e["length"] for e in episodes] == list(LENGTHS)
    assert [e["dataset_to_index"] for e in episodes] == np.cumsum(LENGTHS).tolist()
    assert [e[f"videos/{CAMERA}/from_timestamp"] for e in episodes] == [0.0, 0.7, 1.1]
    rows = pq.read_table(root / "data/chunk-000/file-000.parquet").to_pydict()
    every = np.concatenate([actions_of(i, n) for i, n in enumerate(LENGTHS)])
    assert np.array_equal(np.array(rows["action"], np.float32), every)
    assert rows["index"] == list(range(20)) and rows["frame_index"][7:11] == [0, 1, 2, 3]
    stats = json.loads((root / "meta/stats.json").read_text())
    assert np.allclose(stats["action"]["mean"], every.mean(0)) and np.allclose(stats["action"]["std"], every.std(0))
    pixels = torch.cat([frames_of(i, n) for i, n in enumerate(LENGTHS)]).double() / 255
    assert np.allclose(np.array(stats[CAMERA]["mean"]).ravel(), pixels.mean((0, 2, 3)), atol=1e-6)
    assert np.array(stats[CAMERA]["max"]).shape == (3, 1, 1)


def test_lossy_codecs_stay_near(tmp_path: Path) -> None:
    write_v21(tmp_path / "v21", {"cam": "image"})
    for codec in ("h264", "av1"):
        root = tmp_path / codec
        framepred("convert", f"lerobot:{tmp_path / 'v21'}", "-o", root, "--to", "lerobot", "--codec", codec)
        info = json.loads((root / "meta/info.json").read_text())
        assert info["features"][CAMERA]["info"]["video.codec"] == codec
        for i, episode in enumerate(find_episodes([f"lerobot:{root}"])):
            away = episode.read((32, 48)).frames.float() - frames_of(i, LENGTHS[i]).float()
            assert 0 < away.abs().mean() < 6


@pytest.mark.parametrize(
    ("second", "says"),
    [("size", "has size (16, 24), the first episode (32, 48)"), ("actions", "has actions None, the first episode")],
)
def test_episodes_that_differ_leave_nothing(tmp_path: Path, second: str, says: str) -> None:
    first = write_v21(tmp_path / "v21", {"cam": "image"})
    encode(tmp_path / "b.mp4", shades(4, *((16, 24) if second == "size" else (32, 48))))
    arguments = ["convert", f"lerobot:{first}", tmp_path / "b.mp4", "-o", tmp_path / "set", "--to", "lerobot"]
    said = framepred(*arguments, fails=True)
    assert says in said and said.count("\n") == 1
    assert {p.name for p in tmp_path.iterdir()} == {"v21", "b.mp4"}
    (tmp_path / "set").mkdir()
    assert "exists already: give another -o" in framepred(*arguments, fails=True)


def test_odd_sides_need_the_lossless_codec(tmp_path: Path) -> None:
    encode(tmp_path / "odd.mkv", shades(4, 15, 21), "ffv1", "bgr0")
    said = framepred("convert", tmp_path / "odd.mkv", "-o", tmp_path / "set", "--to", "folder", "--codec", "h264",
                     fails=True)  # fmt: skip
    assert "give --codec lossless" in said and not (tmp_path / "set").exists()
    framepred("convert", tmp_path / "odd.mkv", "-o", tmp_path / "set", "--to", "folder")
    a, b = (find_episodes([p])[0].read((15, 21)).frames for p in (tmp_path / "odd.mkv", tmp_path / "set"))
    assert torch.equal(a, b)


def test_recorded_as_a_lerobot_dataset(tmp_path: Path) -> None:
    gymnasium = pytest.importorskip("gymnasium")

    class Painter(gymnasium.Env):
        """Shows the last action as grey, and names its actions."""

        metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 10}
        action_space, observation_space = gymnasium.spaces.Discrete(3), gymnasium.spaces.Box(0, 1, (1,))
        grey = 0

        def __init__(self, render_mode: str | None = None) -> None:
            self.render_mode = render_mode

        def get_action_meanings(self) -> list[str]:
            return ["WAIT", "LEFT", "JUMP"]

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            self.grey = 20
            return np.zeros(1, np.float32), {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.grey += 10 + 10 * int(action)
            return np.zeros(1, np.float32), 0.0, False, False, {}

        def render(self) -> np.ndarray:
            return np.full((32, 32, 3), self.grey, np.uint8)

    gymnasium.register("test/Shades-v0", Painter, disable_env_checker=True)
    for out, more in (("folder", []), ("set", ["--format", "lerobot"])):
        framepred("record", "test/Shades-v0", "-o", tmp_path / out, "--episodes", 2, "--steps", 3, "--size", 32, *more)
    given, made = find_episodes([tmp_path / "folder"]), find_episodes([f"lerobot:{tmp_path / 'set'}"])
    same(made, given)
    assert values_of(made[0].actions()[1]) == values_of(given[0].actions()[1])
    # Ids are spelled in a folder, so that they mean the same wherever it is.
    framepred("convert", f"lerobot:{tmp_path / 'set'}", "-o", tmp_path / "again", "--to", "folder")
    for a, b in zip(find_episodes([tmp_path / "again"]), given, strict=True):
        (x, names), (y, known) = a.actions(), b.actions()
        assert [values_of(names)[i] for i in x.tolist()][:3] == [values_of(known)[i] for i in y.tolist()]
    said = framepred("record", "test/Shades-v0", "-o", tmp_path / "set", "--format", "lerobot", fails=True)
    assert "into a folder that does not exist" in said


@pytest.mark.parametrize("period", [3600.0, 86400.0, 1001 / 24000])
def test_slow_and_odd_rates_are_kept(tmp_path: Path, period: float) -> None:
    encode(tmp_path / "a.mkv", shades(5, 16, 16), "ffv1", "bgr0", times=[k * period for k in range(5)])
    framepred("convert", tmp_path / "a.mkv", "-o", tmp_path / "set", "--to", "folder")
    (made,), (given,) = find_episodes([tmp_path / "set"]), find_episodes([tmp_path / "a.mkv"])
    # Matroska rounds to milliseconds.
    same_pictures(made, given, 1.1e-3)


def same_pictures(made: StoredEpisode, given: StoredEpisode, near: float) -> None:
    size = given.info().height, given.info().width
    a, b = made.read(size), given.read(size)
    assert torch.equal(a.frames, b.frames)
    assert a.times.tolist() == pytest.approx(b.times.tolist(), abs=near)


@pytest.mark.parametrize("codec", ["lossless", "h264", "av1"])
def test_uneven_times_and_what_is_said_at_them_are_kept(tmp_path: Path, codec: str) -> None:
    times = [0.0, 0.04, 0.08, 0.12, 0.5, 2.0, 2.04, 9.0]
    encode(tmp_path / "a.mkv", shades(8, 64, 64), "ffv1", "bgr0", times=times)
    (tmp_path / "a.captions.csv").write_text("start,end,text\n0,0.3,fast\n0.3,2.02,slow\n2.02,9,late\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        framepred("convert", tmp_path / "a.mkv", "-o", tmp_path / "set", "--to", "folder", "--codec", codec)
    (made,), (given,) = find_episodes([tmp_path / "set"]), find_episodes([tmp_path / "a.mkv"])
    episode = made.read((64, 64))
    assert episode.times.tolist() == pytest.approx(times, abs=1e-4)
    said = [[(c.text, c.start, c.end) for c in e.captions(episode.times, episode.fps)] for e in (made, given)]
    assert said[0] == said[1]


def test_no_episode_takes_the_place_of_another(tmp_path: Path) -> None:
    for i, name in enumerate(("a/clip", "b/clip", "c/clip-2", "d/clip-2")):
        (tmp_path / name).parent.mkdir()
        encode(tmp_path / f"{name}.mkv", shades(3 + i, 16, 16), "ffv1", "bgr0")
    framepred("convert", *(tmp_path / folder for folder in "abcd"), "-o", tmp_path / "set", "--to", "folder")
    lengths = [len(e.read((16, 16)).frames) for e in find_episodes([tmp_path / "set"])]
    assert sorted(lengths) == [3, 4, 5, 6]
