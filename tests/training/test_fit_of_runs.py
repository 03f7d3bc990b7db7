"""A run and a store keep how pictures were made to fit, and everything after them goes by it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import FPS, TINY_SETTINGS, moving_square

from framepred.cli import cli
from framepred.config.frame_size import Fit, FrameSize, fit_of
from framepred.config.recipe import apply_settings
from framepred.engines.export import export
from framepred.errors import FramepredError
from framepred.evaluation.clips import make_groups, read_clips
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.protocol import load_protocol
from framepred.sources.folder import find_videos
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokens.store import check_made_by, read_store_info
from framepred.training.job import Job, stored_recipe
from framepred.training.pipeline import train
from framepred.video.write import write_video
from framepred.world.run import load_run

TINY = [text for setting in TINY_SETTINGS for text in ("--set", setting)]


def call(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")


def done(*arguments: object) -> Any:
    result = call(*arguments)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return result


def refused(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()[-1:]
    return line


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of 64x128: what moves is in the left half, which cropping cuts."""
    folder = tmp_path_factory.mktemp("wide")
    for seed in range(2):
        frames, _ = moving_square(seed, 16)
        write_video(folder / f"w{seed}.mp4", torch.cat([frames, frames // 2], 3), FPS, lossless=True)
    return folder


def trained(videos: Path, out: Path, *options: object) -> Any:
    return done("train", videos, "-o", out, "--recipe", "tiny", *TINY, "--steps", 1, "--size", 32, *options)


@pytest.fixture(scope="module")
def padded(wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("padded") / "run"
    assert "32x32, scaled to lie in that whole, on black" in trained(wide, out, "--fit", "pad").stderr
    return out


def test_train_to_rollout_and_eval_go_by_the_fit_of_the_run(wide: Path, padded: Path) -> None:
    (video, _) = find_videos([wide])
    whole = video.read(FrameSize((32, 32), "pad"), None).frames
    assert (whole[:, :, :8] == 0).all()
    run = load_run(padded)
    made = make_forecast(video.path, str(padded), horizon=3)
    assert torch.equal(torch.cat([made.context, made.truth]), whole[:7])
    protocol = load_protocol(changes={"horizon": 3})
    (group,) = make_groups([str(video.path)], [], protocol, run.tokenizer_sha256, None, "pad")
    (_, clip), *_ = read_clips(group, protocol, run.tokenizer.frame_size, run.fps)
    assert torch.equal(clip.frames, whole[:7])
    # With a size of the protocol's own too.
    larger = load_protocol(changes={"horizon": 3, "size": 64})
    (_, clip), *_ = read_clips(group, larger, run.tokenizer.frame_size, run.fps)
    assert (clip.frames[:, :, :16] == 0).all()
    # A session is given pictures of any shape.
    pictures = video.read((64, 128), None).frames
    assert torch.equal(run.session(pictures[:3]).mark().ids, run.session(whole[:3]).mark().ids)
    assert {json.loads((padded / file).read_text())["fit"] for file in ("framepred.json", "start.json")} == {"pad"}
    assert read_store_info(padded / "tokens").frame_size.fit == "pad"  # type: ignore[attr-defined]
    assert json.loads(done("info", padded, "--json").stdout)["fit"] == "pad"


def test_an_old_run_was_cropped(wide: Path, tiny_run: Path, tmp_path: Path) -> None:
    old = shutil.copytree(tiny_run, tmp_path / "old")
    about = json.loads((old / "framepred.json").read_text())
    assert about.pop("fit") == "crop"
    (old / "framepred.json").write_text(json.dumps(about))
    (old / "recipe.toml").write_text((old / "recipe.toml").read_text().replace('fit = "crop"\n', ""))
    assert not (old / "tokenizer" / "adapter.json").exists()
    assert fit_of(load_run(old).tokenizer.frame_size) == "crop"
    (video, _) = find_videos([wide])
    assert torch.equal(make_forecast(video.path, str(old), horizon=2).context, video.read((64, 64), None).frames[:4])
    again = refused("train", wide, "-o", old, "--resume", "--fit", "pad")
    assert "data.fit is crop in" in again


@pytest.mark.parametrize(("asked", "fit"), [("auto", "pad"), ("crop", "crop")])
def test_what_starts_from_a_run_keeps_its_fit_or_is_told_another(
    asked: str, fit: Fit, wide: Path, padded: Path, tmp_path: Path
) -> None:
    recipe = apply_settings(stored_recipe(padded), [f"data.fit={asked}"])
    list(train(Job([str(wide)], tmp_path / "run", recipe, init_from=str(padded))))
    run = load_run(tmp_path / "run")
    assert fit_of(run.tokenizer.frame_size) == fit
    # How it is used is no part of the tokenizer.
    assert run.tokenizer_sha256 == tokenizer_sha256(padded / "tokenizer")
    assert f'fit = "{fit}"' in (tmp_path / "run" / "recipe.toml").read_text()


def test_a_store_says_its_fit_and_is_never_used_as_another(wide: Path, padded: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done("tokenize", wide / "w0.mp4", "-o", store, "--tokenizer", padded)
    assert json.loads(done("info", store, "--json").stdout)["fit"] == "pad"
    kept = {file.name: file.read_bytes() for file in store.iterdir()}
    line = refused("tokenize", wide, "-o", store, "--tokenizer", padded, "--fit", "crop")
    assert "made to fit by pad, these are by crop: give --fit pad, or another -o" in line
    assert "made to fit by pad, not stretch" in refused("train", store, "-o", tmp_path / "run", "--fit", "stretch")
    assert not (tmp_path / "run").exists()
    with pytest.raises(FramepredError, match="made to fit by pad, the run's by crop"):
        check_made_by(str(store), read_store_info(store).tokenizer_sha256, "crop")
    assert {file.name: file.read_bytes() for file in store.iterdir()} == kept
    about = json.loads((store / "framepred.json").read_text())
    assert about.pop("fit") == "pad"
    (store / "framepred.json").write_text(json.dumps(about))
    assert fit_of(read_store_info(store).frame_size) == "crop"


def test_an_export_keeps_the_fit(padded: Path, tmp_path: Path) -> None:
    export(padded, tmp_path / "hf", "hf")
    assert fit_of(load_tokenizer(tmp_path / "hf").frame_size) == "pad"
