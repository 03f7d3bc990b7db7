"""The commands with a run whose tokenizer sees pictures and actions: every one takes it, with actions and without."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from temporal_run import write_temporal_run

from framepred.cli import cli
from framepred.evaluation.futures import decode_alone
from framepred.sources.folder import find_videos
from framepred.tokenizer.contract import actions_before, last_pictures
from framepred.tokenizer.image import scaled, to_uint8
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokens.store import read_store
from framepred.world.run import Run, load_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_temporal_run(tmp_path_factory.mktemp("temporal") / "run")


@pytest.fixture(scope="module")
def model(folder: Path) -> Run:
    return load_run(folder)


@pytest.fixture(scope="module")
def store(folder: Path, clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("temporal-tokens") / "store"
    facts("tokenize", clips_dir, "--tokenizer", folder / "tokenizer", "-o", out)
    return out


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def facts(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], prog_name="framepred")
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_rollout_gives_one_future_whatever_the_decoder_and_another_without_actions(
    folder: Path, model: Run, clips_dir: Path
) -> None:
    clip, made = clips_dir / "clip0.mp4", {}
    for name, more in {
        "auto": (), "sequential": ("--decoder", "sequential"), "bare": ("--actions", "none"),
        "mean": ("--ensemble", 3),
    }.items():  # fmt: skip
        said = facts("rollout", clip, "--model", folder, "--horizon", 5, "-o", f"{name}.npz", *more)
        assert len(said["psnr"]["ceiling"]) == 5
        made[name] = np.load(f"{name}.npz")
    assert np.array_equal(made["auto"]["tokens"], made["sequential"]["tokens"])
    assert np.array_equal(made["auto"]["frames"], made["sequential"]["frames"])
    assert not np.array_equal(made["auto"]["frames"], made["bare"]["frames"])
    video = find_videos([clip])[0].read((64, 64))
    step = model.session(video.frames[:4], video.actions[:3]).step(video.actions[3])
    assert np.array_equal(step.numpy(), made["auto"]["frames"][:, 0])


def test_the_ceiling_is_what_the_tokenizer_gives_back_after_the_same_actions(
    folder: Path, model: Run, clips_dir: Path
) -> None:
    said = facts("rollout", clips_dir / "clip0.mp4", "--model", folder, "--horizon", 3)
    video = find_videos([clips_dir / "clip0.mp4"])[0].read((64, 64))
    tokens = model.tokenizer.encode(video.frames[:7], video.actions)
    error = model.tokenizer.decode(tokens, video.actions, video.frames[0])[4:].double() - video.frames[4:7].double()
    assert said["mse"]["ceiling"] == pytest.approx((error / 255).square().mean((1, 2, 3)).tolist())


def test_a_store_keeps_first_pictures_and_tokens_given_the_actions(store: Path, model: Run, clips_dir: Path) -> None:
    for episode, video in zip(read_store(store), find_videos([clips_dir]), strict=True):
        clip = video.read((64, 64))
        assert torch.equal(episode.first, clip.frames[0])
        assert torch.equal(episode.tokens.long(), model.tokenizer.encode(clip.frames, clip.actions))
        assert not torch.equal(episode.tokens.long(), model.tokenizer.encode(clip.frames))
    assert facts("info", store)["episodes"] == 5


def test_workers_write_the_same_store(store: Path, folder: Path, clips_dir: Path) -> None:
    facts("tokenize", clips_dir, "--tokenizer", folder / "tokenizer", "-o", "again", "--workers", 2)
    again = {e.name: e for e in read_store("again")}
    for episode in read_store(store):
        assert torch.equal(episode.tokens, again[episode.name].tokens)
        assert torch.equal(episode.first, again[episode.name].first)


def test_eval_scores_each_row_by_its_own_tokens(folder: Path, model: Run, store: Path, clips_dir: Path) -> None:
    settings = ("--context", 2, "--horizon", 3, "--samples", 2, "--set", "bootstrap=50", "--set", "max_clips=2")
    (group,) = facts("eval", clips_dir, "--model", folder, "--train", store, *settings)["groups"]
    names = ("model", "model_no_actions", "model_shuffled_actions", "nearest_training", "decoder_alone", "ceiling")
    assert all(group["rows"][name]["clips"] == 2 for name in names)
    bits = [group["rows"][name]["metrics"]["bits"]["value"] for name in names[:3]]
    assert len(set(bits)) == 3
    alone = facts("eval", clips_dir, "--model", folder, *settings)["groups"][0]["rows"]
    assert alone["model"] == group["rows"]["model"]


def test_the_decoder_alone_is_what_the_tokenizer_draws_without_any_code(model: Run, clips_dir: Path) -> None:
    tokenizer, video = model.tokenizer, find_videos([clips_dir / "clip0.mp4"])[0].read((64, 64))
    assert isinstance(tokenizer, TemporalAutoencoder)
    tokens = tokenizer.encode(video.frames[:4], video.actions)
    made = decode_alone(tokenizer, tokens, video.actions, 3, video.frames[0])
    pictures = last_pictures(tokenizer, tokens, video.actions, video.frames[0])
    for frame, shown in zip(range(4, 7), made, strict=True):
        given = tokenizer.action_features(actions_before(tokenizer, video.actions, frame), 1)
        drawn = to_uint8(tokenizer.net.picture(tokenizer.net.past(scaled(pictures), given), None))
        assert torch.equal(drawn[0], shown)
        pictures = torch.cat([pictures, drawn[:, None]], 1)[:, 1:]


def test_eval_of_stored_tokens_knows_only_the_true_actions(folder: Path, store: Path) -> None:
    settings = ("--context", 2, "--horizon", 3, "--set", "rollout=false", "--set", "bootstrap=50")
    (group,) = facts("eval", store, "--model", folder, *settings)["groups"]
    rows = group["rows"]
    assert (rows["model"]["clips"], rows["model_no_actions"]["clips"]) == (5, 0)
    assert rows["model_no_actions"]["note"] == "stored tokens are of the true actions alone"


def test_surprise_is_of_the_tokens_given_the_actions(folder: Path, clips_dir: Path) -> None:
    clip, baseline = clips_dir / "clip0.mp4", "calibration.json"
    facts("calibrate", clips_dir, "--model", folder, "-o", baseline)
    scored = facts("surprise", clip, "--model", folder, "--calibration", baseline, "-o", "a.npz")
    bare = facts("surprise", clip, "--model", folder, "--calibration", "none", "--actions", "none", "-o", "b.npz")
    assert len(scored["nll"]) == len(bare["nll"]) == 24 and scored["nll"] != bare["nll"]
    result = CliRunner().invoke(cli, ["surprise", str(clip), "--model", str(folder), "--inverse"])
    assert result.exit_code == 1 and "leave --inverse out" in result.stderr


def test_an_export_is_the_same_run(folder: Path, clips_dir: Path) -> None:
    said = facts("export", folder, "--format", "hf", "-o", "hf", "--measure", clips_dir / "clip0.mp4")
    clip = clips_dir / "clip0.mp4"
    for name in (folder, "hf"):
        facts("rollout", clip, "--model", name, "--horizon", 2, "-o", f"{Path(name).name}.npz")
    assert np.array_equal(np.load("run.npz")["frames"], np.load("hf.npz")["frames"])
    assert said["loss"]["frames"] == 23 and said["loss"]["bits_before"] == said["loss"]["bits_after"] > 0


def test_a_run_is_trained_on_its_store(folder: Path, store: Path, clips_dir: Path) -> None:
    settings = [f"predictor.{name}" for name in ("width=32", "layers=1", "heads=2", "kv_heads=2", "mlp_width=64",
                                                 "window=6", "batch_size=4")]  # fmt: skip
    settings += ["training.predictor_steps=3", "training.precision=fp32", "training.validation_batches=1"]
    options = [part for setting in settings for part in ("--set", setting)]
    facts("train", store, "-o", "run", "--recipe", "tiny", "--tokenizer", folder / "tokenizer", *options)
    said = facts("info", "run")
    assert (said["tokens_per_frame"], said["context_codebook_size"]) == (16, 16)
    facts("rollout", clips_dir / "clip0.mp4", "--model", "run", "--horizon", 3)
