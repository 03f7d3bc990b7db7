"""LeRobot datasets: frames, actions, times and captions one by one against what was written."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from lerobot_set import FPS, LENGTHS, NAMES, TASKS, actions_of, frames_of, video, write, write_v3, write_v21

from framepred.errors import FramepredError
from framepred.sources.captions_csv import Caption
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episode, find_episodes

TOP = {"observation.images.top": "video"}
SIZE = (32, 48)


def decoded(path: Path) -> torch.Tensor:
    """Decode a whole file in order, without framepred."""
    with av.open(str(path)) as container:
        return torch.stack([torch.from_numpy(f.to_ndarray(format="rgb24")) for f in container.decode(video=0)])


def check(episodes: list[StoredEpisode], exact: bool = True) -> None:
    """Compare frames, actions, names, times and captions of all episodes with what was written."""
    assert [e.info().num_frames for e in episodes] == list(LENGTHS)
    for i in (2, 0, 1):
        read = episodes[i].read(SIZE)
        truth = frames_of(i, LENGTHS[i])
        if exact:
            assert torch.equal(read.frames, truth)
        else:
            every = torch.cat([frames_of(j, n) for j, n in enumerate(LENGTHS)])
            nearest = torch.cdist(read.frames.flatten(1).float(), every.flatten(1).float()).argmin(1)
            assert nearest.tolist() == list(range(sum(LENGTHS[:i]), sum(LENGTHS[: i + 1])))
        assert torch.equal(read.actions, torch.from_numpy(actions_of(i, LENGTHS[i])))
        assert read.action_names == tuple(NAMES)
        assert torch.allclose(read.times, torch.arange(LENGTHS[i]).double() / FPS, atol=1e-6)
        assert read.fps == FPS
        half = LENGTHS[i] // 2 / FPS
        said = [(c.text, round(c.start, 4), round(c.end, 4)) for c in episodes[i].captions(read.times, FPS)]
        assert said == [(TASKS[0], 0.0, half), (TASKS[1], half, LENGTHS[i] / FPS)]


@pytest.mark.parametrize("drift", [0.0, 0.07, -0.04])
def test_episodes_in_one_av1_file_are_cut_by_count(tmp_path: Path, drift: float) -> None:
    root = write_v3(tmp_path / "set", TOP, drift=drift)
    episodes = find_episodes([f"lerobot:{root}"])
    check(episodes, exact=False)
    whole = decoded(root / "videos/observation.images.top/chunk-000/file-000.mp4").permute(0, 3, 1, 2)
    for i, start in enumerate((0, 7, 11)):
        # Bit for bit what decoding the whole file in order gives.
        assert torch.equal(episodes[i].read(SIZE).frames, whole[start : start + LENGTHS[i]])


def test_h264_with_frames_coded_out_of_order(tmp_path: Path) -> None:
    check(find_episodes([f"lerobot:{write_v3(tmp_path / 'set', TOP, 'libx264rgb')}"]))


def test_images_in_v3_and_files_an_episode_in_v21(tmp_path: Path) -> None:
    check(find_episodes([f"lerobot:{write_v3(tmp_path / 'a', {'observation.image': 'image'})}"]))
    check(find_episodes([f"lerobot:{write_v21(tmp_path / 'b', TOP)}"]))
    check(find_episodes([f"lerobot:{write_v21(tmp_path / 'c', {'cam': 'image'})}"]))


def test_one_camera_of_several_is_asked_for(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", TOP | {"observation.images.wrist": "image"})
    with pytest.raises(
        FramepredError, match=r"2 cameras \(observation.images.top, .*wrist\): choose one with --camera"
    ):
        find_episodes([f"lerobot:{root}"])
    check(find_episodes([f"lerobot:{root}?camera=wrist"]))
    check(find_episodes([f"lerobot:{root}?camera=observation.images.top"]))
    with pytest.raises(FramepredError, match="no camera 'left': give one of"):
        find_episodes([f"lerobot:{root}?camera=left"])


def test_actions_are_chosen_by_column(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", {"cam": "image"})
    (state, names) = find_episode(f"lerobot:{root}?columns=actions=observation.state#1").actions()
    assert torch.equal(state, torch.from_numpy(-actions_of(1, LENGTHS[1])[:, :2])) and names == ("a", "b")
    bare = find_episode(f"lerobot:{root}?columns=actions=none#1")
    assert bare.actions() is None and bare.read(SIZE, fps=5).frames.shape[0] == 2
    with pytest.raises(FramepredError, match=r"no numbers 'cam' for actions: give one of action, observation"):
        find_episodes([f"lerobot:{root}?columns=actions=cam"])
    ids, names = find_episode(f"lerobot:{write_v3(tmp_path / 'd', {'cam': 'image'}, discrete=True)}#2").actions()
    assert ids.tolist() == [i % 4 for i in range(9)] and ids.dtype == torch.int64 and names == ("action",)


def test_a_rate_without_actions_is_by_time(tmp_path: Path) -> None:
    root = write_v3(tmp_path / "set", {"cam": "image"})
    read = find_episode(f"lerobot:{root}?columns=actions=none#2").read(SIZE, fps=20)
    assert torch.equal(read.frames, frames_of(2, 9).repeat_interleave(2, 0))
    assert torch.allclose(read.times, torch.arange(18).double() / 20)


def test_a_whole_task_without_task_numbers(tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", {"cam": "image"})
    for file in root.glob("data/*/*.parquet"):
        import pyarrow.parquet as pq

        pq.write_table(pq.read_table(file).drop_columns(["task_index"]), file)
    episode = find_episode(f"lerobot:{root}#1")
    assert episode.captions(torch.tensor([0.0, 0.3], dtype=torch.float64), FPS) == tuple(
        Caption(0.0, 0.4, t) for t in TASKS
    )


def broken(root: Path, how: str) -> None:
    clip = root / "videos/observation.images.top/chunk-000/file-000.mp4"
    info = root / "meta/info.json"
    if how == "no meta":
        shutil.rmtree(root / "meta")
    elif how == "no video":
        clip.unlink()
    elif how == "short video":
        video(clip, frames_of(0, 19), "libx264rgb")
    elif how == "cut video":
        clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    elif how == "cut data":
        data = root / "data/chunk-000/file-000.parquet"
        data.write_bytes(data.read_bytes()[:-20])
    elif how == "wrong total":
        info.write_text(info.read_text().replace('"total_frames": 20', '"total_frames": 21'))
    elif how == "other version":
        info.write_text(info.read_text().replace("v3.0", "v9.0"))
    elif how == "short data":
        write(root / "data/chunk-000/file-000.parquet", {"episode_index": np.zeros(7, int), "action": [[0.0]] * 7})
    elif how == "no features":
        about = json.loads(info.read_text())
        del about["features"]
        info.write_text(json.dumps(about))
    elif how == "no data path":
        about = json.loads(info.read_text())
        del about["data_path"]
        info.write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no meta", "is no LeRobot dataset .no meta/info.json"),
        ("no video", "file-000.mp4 does not exist"),
        ("short video", "holds 19 frames, its episodes are 20 frames long: counts disagree"),
        ("cut video", "file-000.mp4"),
        ("cut data", "file-000.parquet cannot be read .*copy or download it again"),
        ("wrong total", "counts 21 frames, its episodes are 20"),
        ("other version", "is LeRobot v9.0"),
        ("short data", "is 4 frames long in meta/, and .* has 0 rows of it"),
        ("no features", "info.json is not as LeRobot v3.0 has it"),
        ("no data path", "'data_path'"),
    ],
)
def test_bad_sets_are_one_line(tmp_path: Path, how: str, says: str) -> None:
    root = write_v3(tmp_path / "set", TOP, "libx264rgb")
    broken(root, how)
    with pytest.raises(FramepredError, match=says) as caught:
        find_episodes([f"lerobot:{root}"])[1].read(SIZE)
    assert "\n" not in str(caught.value)


def test_a_set_on_the_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(FramepredError, match="hf://nobody/nothing: the Hub cannot be reached") as caught:
        find_episodes(["lerobot:hf://nobody/nothing"])
    assert "\n" not in str(caught.value)
