"""`import framepred` in a script: light, complete, and the same whatever was imported before."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import framepred


def python(code: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["framepred", "framepred.cli", "framepred.config", "framepred.errors"])
def test_importing_needs_nothing_heavy(module: str) -> None:
    heavy = ("torch", "numpy", "av", "torchvision", "transformers", "accelerate", "datasets", "pyarrow", "PIL")
    loaded = python(f"import sys, {module}; print(*[m for m in {heavy} if m in sys.modules])")
    assert loaded == ""


def test_every_public_name_is_there() -> None:
    for name in framepred.__all__:
        assert getattr(framepred, name) is not None
        assert name in dir(framepred)
    # Importing a module of that name would put it in the name's place.
    assert not {path.stem for path in Path(framepred.__file__).parent.iterdir()} & set(framepred.__all__)
    assert {"read_video", "write_video", "load_tokenizer", "load_run", "rollout", "Clip"} <= set(framepred.__all__)
    with pytest.raises(AttributeError, match="module 'framepred' has no attribute 'nonsense'"):
        _ = framepred.nonsense


def test_from_video_to_predicted_video(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    clip = framepred.read_video(clips_dir / "clip0.mp4")
    assert isinstance(clip, framepred.Clip)
    assert (clip.frames.shape, clip.frames.dtype, clip.fps) == ((24, 3, 64, 64), torch.uint8, 10.0)
    run = framepred.load_run(tiny_run)
    assert isinstance(run, framepred.Run)
    future = framepred.rollout(run, clip, context=4, horizon=6, seed=3)
    assert isinstance(future, Iterator)
    frames = list(future)
    assert [(f.shape, f.dtype) for f in frames] == [((3, 64, 64), torch.uint8)] * 6
    again = list(framepred.rollout(run, clip, context=4, horizon=6, seed=3, decoder="sequential"))
    assert all(torch.equal(a, b) for a, b in zip(frames, again, strict=True))

    framepred.write_video(tmp_path / "future.mp4", frames, clip.fps)
    back = framepred.read_video(tmp_path / "future.mp4")
    assert (len(back.frames), back.fps) == (6, 10.0)
    # A lossy copy, yet of these frames in this order: each is nearest to its own.
    apart = (back.frames[:, None].float() - torch.stack(frames).float()).abs().mean((2, 3, 4))
    assert apart.argmin(1).tolist() == list(range(6))
    assert float(apart.diagonal().mean()) < 16


def test_actions_and_samples(clips_dir: Path, tiny_run: Path) -> None:
    run, clip = framepred.load_run(tiny_run), framepred.read_video(clips_dir / "clip1.mp4", size=64)
    actions = torch.zeros(9, dtype=torch.int64)
    several = list(framepred.rollout(run, clip, actions, context=4, horizon=6, samples=3))
    assert [f.shape for f in several] == [(3, 3, 64, 64)] * 6
    single = list(framepred.rollout(run, clip, actions, context=4, horizon=6))
    # The tokens are the same; a convolution over three frames may round a pixel otherwise than over one.
    assert all(int((a[0].int() - b.int()).abs().max()) <= 1 for a, b in zip(several, single, strict=True))
    with pytest.raises(framepred.FramepredError, match="9 rows, 10 are needed"):
        next(framepred.rollout(run, clip, actions, context=4, horizon=7))


def test_the_tokenizer_contract(tiny_run: Path, clips_dir: Path) -> None:
    from framepred.tokenizer.contract import Tokenizer

    tokenizer = framepred.load_tokenizer(tiny_run / "tokenizer")
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.codebook_size, tokenizer.grid, tokenizer.frame_size) == (64, (8, 8), (64, 64))
    tokens = tokenizer.encode(framepred.read_video(clips_dir / "clip0.mp4").frames)
    assert tokens.shape == (24, 8, 8)
    assert tokenizer.decode(tokens).shape == (24, 3, 64, 64)


def test_rollout_is_the_same_in_another_process(clips_dir: Path, tiny_run: Path) -> None:
    run, clip = framepred.load_run(tiny_run), framepred.read_video(clips_dir / "clip0.mp4")
    here = torch.stack(list(framepred.rollout(run, clip, horizon=5, seed=11)))
    code = (
        "import framepred, framepred.cli, hashlib, torch\n"
        f"run, clip = framepred.load_run({str(tiny_run)!r}), framepred.read_video({str(clips_dir / 'clip0.mp4')!r})\n"
        "frames = torch.stack(list(framepred.rollout(run, clip, horizon=5, seed=11)))\n"
        "print(hashlib.sha256(frames.numpy().tobytes()).hexdigest())"
    )
    assert python(code) == hashlib.sha256(here.numpy().tobytes()).hexdigest()
