"""The run that comes along keeps its word on the held-out clips that come with it."""

from pathlib import Path

import pytest
import torch

from framepred.checkpoint import Run, load_run
from framepred.data.actions import actions_path, read_actions
from framepred.evaluation import score
from framepred.metrics import psnr_of
from framepred.rollout import predict
from framepred.sampling import Sampling
from framepred.video import read_video

ROOT = Path(__file__).parent.parent
HORIZON, CONTEXT, STARTS = 8, 4, (0, 12, 24, 36)


@pytest.fixture(scope="module")
def shipped() -> Run:
    return load_run("doom-64")


def pooled(run: Run, with_actions: bool) -> dict[str, float]:
    """Return pooled PSNR by row over stretches of the example clip."""
    clip = ROOT / "examples" / "my-way-home.mp4"
    frames, actions = read_video(clip).frames, read_actions(actions_path(clip))[0]
    errors: dict[str, list[torch.Tensor]] = {"model": [], "copy_last": [], "ceiling": []}
    for start in STARTS:
        context, truth = frames[start : start + CONTEXT], frames[start + CONTEXT : start + CONTEXT + HORIZON]
        taken = actions[start : start + CONTEXT + HORIZON - 1] if with_actions else None
        tokens = run.tokenizer.encode(context)
        made = torch.stack([p.frames for p in predict(run, tokens, taken, HORIZON, 4, Sampling(seed=start))], 1)
        for row, values in score(made, truth, context, run.tokenizer).mse.items():
            errors[row].append(values)
    return {row: float(psnr_of(torch.stack(values).mean())) for row, values in errors.items()}


def test_the_shipped_run_beats_copying_and_uses_actions(shipped: Run) -> None:
    scores = pooled(shipped, with_actions=True)
    assert scores["ceiling"] >= 27
    assert scores["model"] >= scores["copy_last"] + 1.5
    assert scores["model"] > pooled(shipped, with_actions=False)["model"]


def test_the_shipped_run_predicts_footage_without_actions(shipped: Run) -> None:
    frames = read_video(ROOT / "examples" / "box.mp4", size=64, fps=shipped.fps).frames
    tokens = shipped.tokenizer.encode(frames[:4])
    made = torch.stack([p.frames for p in predict(shipped, tokens, None, 8, 1, Sampling(temperature=0))], 1)
    assert psnr_of(score(made, frames[4:12], frames[:4], shipped.tokenizer).mse["model"].mean()) > 18


def test_what_ships_is_small() -> None:
    files = [f for folder in ("models", "tokenizers") for f in (ROOT / folder).rglob("*") if not f.is_symlink()]
    assert sum(f.stat().st_size for f in files if f.is_file() and "tokenizer/" not in str(f)) < 25_000_000
