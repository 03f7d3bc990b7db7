"""Datasets of others through the commands: tokenized, trained on, scored, rolled out."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS
from lerobot_set import LENGTHS, NAMES, TASKS, actions_of, frames_of, video, write_v3, write_v21
from minari_set import write_minari
from table_sets import frames_parquet, tar

from framepred.cli import cli
from framepred.engines.export import measure_loss
from framepred.sources.find import find_episodes
from framepred.tokens.store import read_store
from framepred.world.run import load_run
from framepred.world.starts import Starts


def framepred(*arguments: object, fails: bool = False) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)
    assert (result.exit_code != 0) == fails, result.output
    return result.output if fails else result.stdout


@pytest.fixture(scope="module")
def lerobot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_v3(tmp_path_factory.mktemp("lerobot") / "set", {"top": "video", "wrist": "image"}, "libx264rgb")


@pytest.fixture(scope="module")
def run(lerobot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained for a few steps on a LeRobot dataset."""
    out = tmp_path_factory.mktemp("run") / "run"
    settings = [a for setting in TINY_SETTINGS for a in ("--set", setting)]
    framepred(
        "train", f"lerobot:{lerobot}", "--camera", "top", "-o", out, *settings, "--steps", 3,
        "--set", "data.size=[32, 48]", "--set", "predictor.window=3",
    )  # fmt: skip
    return out


def test_a_store_holds_what_was_written(lerobot: Path, run: Path, tmp_path: Path) -> None:
    source = f"lerobot:{lerobot}"
    made = framepred("tokenize", source, "--camera", "top", "-o", tmp_path / "s", "--tokenizer", run, "--json")
    assert json.loads(made)["episodes"] == 3
    for i, episode in enumerate(read_store(tmp_path / "s")):
        assert episode.name == f"set-{i:06d}" and len(episode.tokens) == LENGTHS[i]
        assert torch.equal(episode.actions, torch.from_numpy(actions_of(i, LENGTHS[i])))
        assert [c.text for c in episode.captions] == TASKS
    assert tuple(read_store(tmp_path / "s", tuple(NAMES[::-1]))[0].actions[1].tolist()) == (1.5, 1.25, 1.0)
    # Again: nothing is missing, whichever way the set is named.
    again = framepred("tokenize", f"{source}?camera=top", "-o", tmp_path / "s", "--tokenizer", run, "--json")
    assert json.loads(again)["frames"] == 0


def test_episodes_reach_worker_processes(lerobot: Path) -> None:
    for episode in find_episodes([f"lerobot:{lerobot}?camera=top", f"lerobot:{lerobot}?camera=wrist"]):
        sent = pickle.loads(pickle.dumps(episode))
        assert sent == episode and torch.equal(sent.read((32, 48)).frames, episode.read((32, 48)).frames)


def test_one_episode_is_rolled_out_and_all_are_scored(lerobot: Path, run: Path, tmp_path: Path) -> None:
    episode = f"lerobot:{lerobot}?camera=top#2"
    framepred("rollout", episode, "--model", run, "--context", 2, "--horizon", 3, "-o", tmp_path / "r.mp4")
    made = framepred(
        "eval", f"held=lerobot:{lerobot}#1:", "--camera", "wrist", "--model", run, "--context", 2, "--horizon", 2,
        "--json",
    )  # fmt: skip
    (group,) = json.loads(made)["groups"]
    assert group["name"] == "held" and group["clips"] == 2
    framepred("surprise", episode, "--model", run, "-o", tmp_path / "s.mp4")
    said = framepred("rollout", episode.split("#")[0], "--model", run, "-o", tmp_path / "t.mp4", fails=True)
    assert "holds 3 episodes, one is wanted" in said and said.count("\n") == 1


def parquet(folder: Path) -> str:
    return f"hf:{frames_parquet(folder / 'frames.parquet')}?fps=10"


def webdataset(folder: Path) -> str:
    video(folder / "clip.mp4", frames_of(2, 9), "libx264rgb")
    sample = {"mp4": (folder / "clip.mp4").read_bytes(), "json": json.dumps({"action": [0, 1, 2] * 3}).encode()}
    return f"hf:{tar(folder / 'shard.tar', [sample] * 3)}"


def minari(folder: Path) -> str:
    pytest.importorskip("h5py")
    return f"minari:{write_minari(folder)}?fps=10"


def lerobot_v21(folder: Path) -> str:
    return f"lerobot:{write_v21(folder / 'set', {'cam': 'image'})}"


@pytest.mark.parametrize("make", [parquet, minari, lerobot_v21])
def test_a_set_that_moved_is_not_tokenized_again(make: Callable[[Path], str], run: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    source, store = make(tmp_path / "here"), tmp_path / "s"
    framepred("tokenize", source, "-o", store, "--tokenizer", run)
    (tmp_path / "here").rename(tmp_path / "there")
    moved = source.replace(f"{tmp_path}/here", f"{tmp_path}/there")
    made = json.loads(framepred("tokenize", moved, "-o", store, "--tokenizer", run, "--json"))
    assert made["frames"] == 0 and len(read_store(store)) == made["episodes"]


@pytest.mark.parametrize("make", [parquet, webdataset, minari, lerobot_v21])
def test_trained_on_and_rolled_out(make: Callable[[Path], str], run: Path, tmp_path: Path) -> None:
    source, out = make(tmp_path), tmp_path / "run"
    settings = [a for setting in TINY_SETTINGS for a in ("--set", setting)]
    framepred("train", source, "-o", out, "--tokenizer", run, *settings, "--steps", 2, "--set", "predictor.window=3")
    framepred("rollout", f"{source}#1", "--model", out, "--context", 2, "--horizon", 2, "-o", tmp_path / "r.npz")
    assert np.load(tmp_path / "r.npz")["actions"].shape[0] == 3


def test_a_dataset_is_where_worlds_begin_and_what_exports_are_measured_on(lerobot: Path, run: Path) -> None:
    loaded = load_run(run)
    (loss,) = list(measure_loss(loaded, loaded, [f"lerobot:{lerobot}?camera=top#0"]))
    assert loss.frames == LENGTHS[0] - 1 and loss.before == loss.after > 0
    frames, actions = Starts(loaded, f"lerobot:{lerobot}?camera=top#2").draw(np.random.default_rng(0), 2)
    place = [torch.equal(frames, frames_of(2, 9)[t : t + 2]) for t in range(8)].index(True)
    assert torch.equal(actions, torch.from_numpy(actions_of(2, 9)[place : place + 1]))


def test_choices_that_no_source_has(lerobot: Path, clips_dir: Path, tmp_path: Path) -> None:
    said = framepred("tokenize", clips_dir, "--camera", "top", "-o", tmp_path / "s", fails=True)
    assert "--camera top is for sources with a prefix" in said
    said = framepred("tokenize", f"lerobot:{lerobot}", "--observation", "top", "-o", tmp_path / "s", fails=True)
    assert "has no choice 'observation'" in said and not (tmp_path / "s").exists()


def test_sets_with_other_actions_do_not_mix(lerobot: Path, run: Path, tmp_path: Path) -> None:
    other = write_v3(tmp_path / "other", {"top": "image"}, discrete=True)
    out = tmp_path / "s"
    said = framepred("tokenize", f"lerobot:{lerobot}", f"lerobot:{other}", "--camera", "top", "-o", out,
                     "--tokenizer", run, fails=True)  # fmt: skip
    assert "discrete actions" in said and said.count("\n") == 1 and not out.exists()


def test_counts_that_disagree_leave_nothing(run: Path, tmp_path: Path) -> None:
    root = write_v21(tmp_path / "set", {"top": "image"})
    info = root / "meta/info.json"
    info.write_text(info.read_text().replace('"total_episodes": 3', '"total_episodes": 4'))
    said = framepred("tokenize", f"lerobot:{root}", "-o", tmp_path / "s", "--tokenizer", run, fails=True)
    assert "counts 4 episodes, its episodes are 3" in said and said.count("\n") == 1 and not (tmp_path / "s").exists()


def test_info_and_preview_of_a_dataset(lerobot: Path, tmp_path: Path) -> None:
    facts = json.loads(framepred("info", f"lerobot:{lerobot}?camera=top", "--json"))
    assert (facts["episodes"], facts["frames"], facts["width"], facts["height"]) == (3, sum(LENGTHS), 48, 32)
    assert facts["actions"] == "continuous: x, y, gripper" and facts["captions"] == TASKS
    assert "choose one with --camera" in framepred("info", f"lerobot:{lerobot}", fails=True)
    framepred("preview", f"lerobot:{lerobot}", "--camera", "wrist", "-o", tmp_path / "page.html")
    assert "gripper" in (tmp_path / "page.html").read_text()
