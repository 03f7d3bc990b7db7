"""Hugging Face datasets, Parquet and WebDataset tars: frames and actions one by one against what was written."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from lerobot_set import FPS, LENGTHS, actions_of, frames_of, png, video
from table_sets import EPISODES, episodes_table, frames_parquet, tar

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.captions_csv import Caption
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episode, find_episodes

SIZE = (32, 48)


def check(episodes: list[StoredEpisode], actions: bool = True) -> None:
    """Compare all episodes, read out of order, with what was written."""
    assert len(episodes) == len(LENGTHS)
    for i in (2, 0, 1):
        read = episodes[i].read(SIZE)
        assert torch.equal(read.frames, frames_of(i, LENGTHS[i]))
        assert torch.allclose(read.times, torch.arange(LENGTHS[i]).double() / FPS)
        assert (read.actions is not None) == actions
        if actions:
            assert torch.equal(read.actions, torch.from_numpy(actions_of(i, LENGTHS[i])))
            assert read.action_names == ("action_0", "action_1", "action_2")
        assert (episodes[i].info().width, episodes[i].info().height) == SIZE[::-1]


def test_a_parquet_of_png_frames(tmp_path: Path) -> None:
    source = f"hf:{frames_parquet(tmp_path / 'frames.parquet')}"
    with pytest.warns(FramepredWarning, match=r"10 are assumed; \?fps=N says"):
        check(find_episodes([source]))
    assert find_episode(f"{source}?fps=5#1").read(SIZE).times.tolist() == [0.0, 0.2, 0.4, 0.6]
    bare = find_episode(f"{source}?fps=10&columns=actions=none#1").read(SIZE, fps=20)
    assert torch.equal(bare.frames, frames_of(1, 4).repeat_interleave(2, 0))


def test_a_list_of_frames_in_each_row_and_text(tmp_path: Path) -> None:
    for part in (0, 1):
        rows = {k: v[:2] if part == 0 else v[2:] for k, v in episodes_table().items()}
        pq.write_table(pa.table(rows), tmp_path / f"part-{part}.parquet")
    chosen = "?fps=10&columns=actions=moves,text=said"
    for where in (tmp_path, tmp_path / "part-*.parquet"):
        episodes = find_episodes([f"hf:{where}{chosen}"])
        check(episodes)
        assert episodes[2].captions(torch.tensor([0.0, 0.5], dtype=torch.float64), 10) == (
            Caption(0.0, 0.6, "words 2"),
        )


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"clip": [datasets.Image()], "moves": [[datasets.Value("float32")]], "said": datasets.Value("string")}
    )
    datasets.Dataset.from_dict(episodes_table(), features=features).save_to_disk(tmp_path / "saved")
    check(find_episodes([f"hf:{tmp_path / 'saved'}?fps=10&columns=actions=moves"]))


def test_webdataset_tars_of_videos(tmp_path: Path) -> None:
    samples = []
    for i in EPISODES:
        video(tmp_path / "clip.mp4", frames_of(i, LENGTHS[i]), "libx264rgb")
        about = {"action": actions_of(i, LENGTHS[i]).tolist(), "other": 1}
        samples.append(
            {"mp4": (tmp_path / "clip.mp4").read_bytes(), "json": json.dumps(about).encode(), "txt": b"a push"}
        )
    source = f"hf:{tar(tmp_path / 'shard.tar', samples)}"
    episodes = find_episodes([source])
    check(episodes)
    assert episodes[0].captions(torch.zeros(1), 10)[0].text == "a push"
    check(find_episodes([f"{source}?columns=video=mp4,actions=none"]), actions=False)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("?columns=actions=none,episode=none", "one picture a row in 'image': say which column tells episodes apart"),
        ("?columns=frames=picture", "has no column 'picture': it has image, action, episode"),
        ("?columns=image", "columns 'image' of .* give ROLE=COLUMN, the roles are video, frames, actions"),
        ("?columns=sound=image", "columns 'sound=image'"),
        ("?fps=0", "fps '0' .* is not allowed"),
        ("?camera=top", "no choice 'camera'.*it has columns, config, split, fps"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, query: str, says: str) -> None:
    frames_parquet(tmp_path / "frames.parquet")
    with pytest.raises(FramepredError, match=says) as caught:
        find_episodes([f"hf:{tmp_path / 'frames.parquet'}{query}"])
    assert "\n" not in str(caught.value)


def test_files_that_are_broken_or_not_there(tmp_path: Path) -> None:
    whole = frames_parquet(tmp_path / "whole.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.tar").write_bytes(b"abc" * 400)
    mixed = [e for i in EPISODES for e in [f"e{i % 2}"] * LENGTHS[i]]
    frames_parquet(tmp_path / "mixed.parquet", episode=mixed)
    frames_parquet(tmp_path / "bad.parquet", image=[{"bytes": b"\x89PNG no", "path": None}] * sum(LENGTHS))
    frames_parquet(tmp_path / "two.parquet", other=[png(torch.zeros(3, 8, 8, dtype=torch.uint8))] * sum(LENGTHS))
    for name, says in (
        ("cut.parquet", "cannot be read"),
        ("cut.tar", "cannot be read"),
        ("none.parquet", "does not exist"),
        ("none-*.parquet", "does not exist"),
        ("mixed.parquet", "rows of episode 'e0' are in several places"),
        ("bad.parquet", "has 0 columns of videos or pictures"),
        ("two.parquet", r"has 2 columns of videos or pictures \(frames=image, frames=other\)"),
    ):
        with pytest.raises(FramepredError, match=says) as caught:
            find_episodes([f"hf:{tmp_path / name}?fps=10"])
        assert "\n" not in str(caught.value)


def test_a_dataset_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    for address in ("hf:nobody/nothing", "hf://nobody/nothing"):
        with pytest.raises(FramepredError, match="source hf:nobody/nothing cannot be read") as caught:
            find_episodes([address])
        assert "\n" not in str(caught.value)
