"""`scripts/compare_tokenizers`: rows that say what is there, kinds that are kept, every error."""

import json
import math
import runpy
import shutil
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ceiling import measure_ceiling
from click.testing import CliRunner, Result
from doubles import Chained
from torch import Tensor

from framepred.config.recipe import apply_settings, load_recipe
from framepred.evaluation.metrics import psnr_of
from framepred.io.files import file_sha256
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.video.read import read_video

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = (
    "tokenizer.width=16", "tokenizer.batch_size=8", "training.precision=fp32", "training.warmup=0.2",
    "predictor.width=32", "predictor.layers=1", "predictor.mlp_width=64", "predictor.batch_size=2",
    "predictor.window=4", "training.validation_batches=1",
)  # fmt: skip


@pytest.fixture
def held_out(clips_dir: Path, tmp_path: Path) -> Path:
    """A folder of a clip that the others are not trained with: a copy of one of them will do."""
    folder = tmp_path / "held-out"
    folder.mkdir()
    for ending in ("mp4", "actions.csv"):
        shutil.copy(clips_dir / f"clip1.{ending}", folder)
    return folder


@pytest.fixture
def invoke(clips_dir: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    main = runpy.run_path(str(SCRIPTS / "compare_tokenizers"))["main"]
    given = [str(clips_dir), "--held-out", str(held_out), "-o", str(tmp_path / "out"), "--recipe", "tiny"]
    given += [word for setting in TINY for word in ("--set", setting)]

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [*given, *map(str, arguments)])

    return call


def last_line(result: Result) -> Any:
    assert result.exit_code == 0, (result.output, result.exception)
    return json.loads(result.stdout.splitlines()[-1], parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_two_kinds_are_compared_and_kept(invoke: Callable[..., Result], held_out: Path, tmp_path: Path) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    pytest.importorskip("matplotlib")
    out = tmp_path / "out"
    first = last_line(invoke("--minutes", 0.05, "--kinds", "fsq"))
    (own,) = first["rows"]
    frames = read_video(held_out / "clip1.mp4").frames
    tokenizer = load_tokenizer(out / "fsq")
    tokens = tokenizer.encode(frames)
    error = ((tokenizer.decode(tokens).double() - frames.double()) / 255).square().mean()
    assert own["psnr"] == pytest.approx(float(psnr_of(error)), abs=1e-3)
    assert own["codes_used"] == pytest.approx(len(tokens.unique()) / 1024, abs=1e-4)
    assert (own["tokens_a_frame"], own["codes"], own["bits_a_frame"]) == (64, 1024, 640)
    assert own["frames_seen"] > 0
    assert own["frames_seen"] % 8 == 0
    assert own["epochs"] == pytest.approx(own["frames_seen"] / (4 * 24), abs=0.01), "one of five clips validates"

    weights = out / "fsq" / "tokenizer" / "model.safetensors"
    before = file_sha256(weights), weights.stat().st_mtime_ns
    result = invoke("--minutes", 0.05, "--kinds", "vq-pytorch,fsq", "--predict", 0.03)
    ours, plain = last_line(result)["rows"]
    assert (file_sha256(weights), weights.stat().st_mtime_ns) == before
    assert ours.items() > own.items()
    assert 0 < ours["rollout_psnr"] < 100
    assert ours["copy_last_psnr"] > 0
    assert (plain["kind"], plain["bits_a_frame"]) == ("vq-pytorch", 640)
    assert plain["frames_seen"] > 0
    assert "rollout_psnr" not in plain

    table = (out / "table.md").read_text()
    assert result.stdout.startswith(table)
    assert [line.split(" | ")[0] for line in table.splitlines()[:4]] == ["| kind", "| ---", "| fsq", "| vq-pytorch"]
    assert {line.count(" | ") for line in table.splitlines()[:4]} == {table.splitlines()[0].count(" | ")}
    assert json.loads((out / "results.json").read_text()) == last_line(result)
    drawn = "".join(ET.parse(out / "rates.svg").getroot().itertext())
    assert all(word in drawn for word in ("fsq", "vq-pytorch", "bits a frame", "SSIM"))

    beside = last_line(invoke("--minutes", 0.05, "--kinds", "", "--also", "doom-64"))["rows"][-1]
    assert (beside["kind"], beside["codes"], "frames_seen" in beside) == ("doom-64", 4096, False)
    assert beside["psnr"] == pytest.approx(measure_ceiling(load_tokenizer("doom-64"), iter([frames])).psnr, abs=1e-3)

    refused = invoke("--minutes", 0.1, "--kinds", "fsq")
    assert refused.exit_code == 1
    assert f"{out} holds a comparison with another minutes, recipe: give what" in refused.stderr


def test_what_cannot_be_compared_is_refused_at_once(
    invoke: Callable[..., Result], clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = invoke("--kinds", "fsq,vqgan")
    assert "kind 'vqgan' is not known; give some of fsq,fsq-adamw," in unknown.stderr
    same = invoke("--kinds", "fsq", "--held-out", clips_dir / "clip2.mp4")
    assert "clip2.mp4 is both trained on and held out: give other clips with --held-out" in same.stderr
    monkeypatch.setitem(sys.modules, "vector_quantize_pytorch", None)
    missing = invoke("--kinds", "fsq,vq-pytorch")
    assert "needs vector-quantize-pytorch: pip install vector-quantize-pytorch, or leave it out" in missing.stderr
    assert {r.exit_code for r in (unknown, same, missing)} == {1}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["vq-pytorch", "iris"])
def test_a_baseline_is_a_tokenizer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vector_quantize_pytorch")
    baselines = runpy.run_path(str(SCRIPTS / "baselines.py"))["BASELINES"]
    recipe = apply_settings(load_recipe("tiny"), ["data.size=[32, 64]", "tokenizer.width=16"])
    model = baselines[kind](recipe)
    codes, loss = model(torch.randn(2, 3, 32, 64))
    (codes.square().mean() + loss).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
    frames = torch.randint(0, 256, (2, 3, 32, 64), dtype=torch.uint8)
    tokens = model.eval().encode(frames)
    assert tokens.shape == (2, *model.grid)
    assert math.prod(model.grid) == {"vq-pytorch": 32, "iris": 8}[kind]
    assert int(tokens.max()) < model.codebook_size == {"vq-pytorch": 1024, "iris": 512}[kind]
    with torch.inference_mode():
        chosen, ids, _ = model.quantize(torch.randn(2, *model.lookup(tokens).shape[1:]))
        assert torch.allclose(chosen, model.lookup(ids), atol=1e-5), "ids name the codes that are decoded"
    assert model.decode(tokens).shape == frames.shape


@pytest.mark.parametrize("kind", ["image", "chained"])
def test_a_ceiling_counts_each_frames_own_codes(kind: str) -> None:
    recipe = apply_settings(load_recipe("tiny"), ["tokenizer.width=8"]).tokenizer
    tokenizer: Any = Autoencoder(recipe, (32, 32)).eval() if kind == "image" else Chained()
    clips = [torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8) for count in (3, 2)]

    def own(clip: Tensor) -> Tensor:
        return tokenizer.encode(clip).flatten(1)[:, -math.prod(tokenizer.grid) :]

    ceiling = measure_ceiling(tokenizer, iter(clips))
    counted = torch.cat([own(clip) for clip in clips]).flatten().bincount(minlength=tokenizer.codebook_size)
    assert torch.equal(ceiling.counts, counted)
    assert len(ceiling.mse) == len(ceiling.ssim) == 5
    assert ceiling.used == pytest.approx(int((counted > 0).sum()) / tokenizer.codebook_size)
    shares = counted.double() / counted.sum()
    assert ceiling.perplexity == pytest.approx(float(torch.special.entr(shares).sum().exp()))
    assert ceiling.psnr == pytest.approx(float(psnr_of(ceiling.mse.mean())))


def test_the_temporal_kind_is_compared_too(invoke: Callable[..., Result]) -> None:
    row = last_line(invoke("--minutes", 0.05, "--kinds", "temporal"))["rows"][0]
    assert (row["kind"], row["tokens_a_frame"], row["context_tokens"], row["codes"]) == ("temporal", 16, 16, 375)
    assert row["psnr"] > 8
