"""Minari datasets: T + 1 pictures of T actions, spaces of dictionaries."""

from pathlib import Path

import numpy as np
import pytest
import torch
from minari_set import STEPS, pictures

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.find import find_episode, find_episodes

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
from gymnasium import spaces  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

# minari says so of each field that a dataset does not fill in.
pytestmark = pytest.mark.filterwarnings("ignore:.*None:UserWarning:minari")

IMAGE = spaces.Box(0, 255, (16, 24, 3), np.uint8)
PATH = spaces.Box(-1, 1, (2,), np.float32)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write a dataset of two episodes through minari itself and return its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))

    def make(observation, observe, action, act, name: str = "test/set-v0", form: str = "hdf5") -> Path:
        buffers = [
            EpisodeBuffer(
                observations=observe(i), actions=act(i), rewards=[0.0] * n, terminations=[False] * n,
                truncations=[False] * (n - 1) + [True], infos={},
            )
            for i, n in enumerate(STEPS)
        ]  # fmt: skip
        minari.create_dataset_from_buffers(
            name, buffers, observation_space=observation, action_space=action, jpeg_encoding=False, data_format=form
        )
        return tmp_path / name

    return make


@pytest.mark.parametrize("form", ["hdf5", "arrow"])
def test_frames_and_actions_are_those_written(write, form: str) -> None:
    root = write(
        IMAGE, lambda i: list(pictures(i)), spaces.Discrete(4), lambda i: [np.int64(t % 4) for t in range(STEPS[i])],
        form=form,
    )  # fmt: skip
    with pytest.warns(FramepredWarning, match=r"10 are assumed; \?fps=N says"):
        episodes = find_episodes([f"minari:{root}"])
    assert [e.name for e in episodes] == ["set-v0-000000", "set-v0-000001"]
    for i, episode in enumerate(episodes):
        read = episode.read((16, 24))
        assert torch.equal(read.frames, torch.from_numpy(pictures(i)).permute(0, 3, 1, 2))
        assert read.actions.tolist() == [t % 4 for t in range(STEPS[i])] and read.actions.dtype == torch.int64
        assert len(read.frames) == len(read.actions) + 1 == episode.info().num_frames
    named = find_episode("minari:test/set-v0?fps=25#1")
    assert named.key == episodes[1].key and named.read((16, 24)).times.tolist() == [t / 25 for t in range(9)]


def test_dictionaries_of_observations_and_actions(write) -> None:
    both = spaces.Dict({"camera": IMAGE, "state": PATH, "inner": spaces.Dict({"wrist": IMAGE})})
    act = spaces.Dict({"arm": PATH, "grip": spaces.Discrete(2)})
    moves = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) / 99 for n in STEPS]
    root = write(
        both,
        lambda i: {
            "camera": list(pictures(i)), "state": [np.zeros(2, np.float32)] * (STEPS[i] + 1),
            "inner": {"wrist": list(255 - pictures(i))},
        },
        act, lambda i: {"arm": list(moves[i]), "grip": [np.int64(t % 2) for t in range(STEPS[i])]},
    )  # fmt: skip
    with pytest.raises(
        FramepredError, match=r"several pictures \(camera, inner.wrist\): choose one with --observation"
    ):
        find_episodes([f"minari:{root}?fps=5"])
    with pytest.raises(FramepredError, match="no pictures 'state' among its observations"):
        find_episodes([f"minari:{root}?fps=5&observation=state"])
    read = find_episode(f"minari:{root}?fps=5&observation=inner.wrist#0").read((16, 24))
    assert torch.equal(read.frames, torch.from_numpy(255 - pictures(0)).permute(0, 3, 1, 2))
    assert read.action_names == ("arm.0", "arm.1", "grip")
    assert torch.equal(read.actions[:, :2], torch.from_numpy(moves[0]))
    assert read.actions[:, 2].tolist() == [0, 1, 0, 1, 0]


def test_bad_sets_are_one_line(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = write(PATH, lambda i: [np.zeros(2, np.float32)] * (STEPS[i] + 1), PATH,
                    lambda i: [np.zeros(2, np.float32)] * STEPS[i], "test/numbers-v0")  # fmt: skip
    stacked = spaces.Box(0, 255, (4, 16, 24), np.uint8)
    stack = write(stacked, lambda i: [np.zeros((4, 16, 24), np.uint8)] * (STEPS[i] + 1), PATH,
                  lambda i: [np.zeros(2, np.float32)] * STEPS[i], "test/stack-v0")  # fmt: skip
    for source, says in (
        (f"minari:{numbers}?fps=5", "has no pictures: its observations are Box"),
        (f"minari:{stack}?fps=5", "has no pictures"),
        (f"minari:{tmp_path}?fps=5", "is no Minari dataset"),
        (f"minari:{numbers}?fps=many", "fps 'many'"),
        (f"minari:{numbers}?camera=top", "no choice 'camera'"),
    ):
        with pytest.raises(FramepredError, match=says) as caught:
            find_episodes([source])
        assert "\n" not in str(caught.value)
    about = numbers / "data/metadata.json"
    about.write_text(about.read_text().replace('"observation_space"', '"observed"'))
    with pytest.raises(FramepredError, match="does not name its spaces"):
        find_episodes([f"minari:{numbers}?fps=5"])
    good = write(IMAGE, lambda i: list(pictures(i)), PATH, lambda i: [np.zeros(2, np.float32)] * STEPS[i])
    file = good / "data/main_data.hdf5"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(FramepredError, match="cannot be read") as caught:
        find_episodes([f"minari:{good}?fps=5"])
    assert "\n" not in str(caught.value)
