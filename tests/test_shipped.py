"""The run that comes along works on the held-out clips that come with it."""

from pathlib import Path

import pytest
import torch

from framepred.decoding.sampling import Sampling
from framepred.evaluation.ceiling import score
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.metrics import psnr_of
from framepred.recording.gym import Recording, record
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.video.read import read_video
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

ROOT = Path(__file__).parent.parent
CLIP = ROOT / "examples" / "my-way-home.mp4"


@pytest.fixture(scope="module")
def shipped() -> Run:
    return load_run("doom-64")


def future(run: Run, actions: torch.Tensor | None, horizon: int, decoder: str = "auto") -> tuple[torch.Tensor, ...]:
    """Return predicted frames (1, T, 3, H, W), tokens, and the clip's own frames."""
    frames = read_video(CLIP).frames
    made = list(predict(run, run.tokenizer.encode(frames[:4]), actions, horizon, 1, Sampling(seed=3), decoder))
    return torch.stack([p.frames for p in made], 1), torch.stack([p.tokens for p in made], 1), frames


def test_the_tokenizer_keeps_unseen_frames(shipped: Run) -> None:
    frames = read_video(CLIP).frames
    scores = score(frames[None, 4:], frames[4:], frames[:4], shipped.tokenizer)
    assert float(psnr_of(scores.mse["ceiling"].mean())) >= 27


def test_the_tokenizer_keeps_footage_whose_first_half_it_knows(shipped: Run) -> None:
    frames = read_video(ROOT / "examples" / "box.mp4", shipped.tokenizer.frame_size).frames
    scores = score(frames[None, 4:], frames[4:], frames[:4], shipped.tokenizer)
    assert float(psnr_of(scores.mse["ceiling"].mean())) >= 26


def test_both_decoders_give_the_same_frames(shipped: Run) -> None:
    actions = read_actions(actions_path(CLIP))[0]
    fast, slow = (future(shipped, actions, 4, decoder)[1] for decoder in ("speculative", "sequential"))
    assert torch.equal(fast, slow)


def test_the_next_frame_follows_the_last(shipped: Run) -> None:
    predicted, _, frames = future(shipped, read_actions(actions_path(CLIP))[0], 1)
    error = score(predicted, frames[4:5], frames[:4], shipped.tokenizer).mse["model"]
    elsewhere = score(predicted.flip(-1), frames[4:5], frames[:4], shipped.tokenizer).mse["model"]
    assert float(error) < float(elsewhere) / 2 or float(psnr_of(error)) > 20


@pytest.mark.slow
def test_it_predicts_better_than_copying(shipped: Run, tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    errors: dict[str, list[torch.Tensor]] = {"model": [], "no actions": [], "copy_last": []}
    for video in record(Recording("VizdoomMyWayHome-v1", episodes=24, steps=12, seed=5000), tmp_path):
        for row, actions in (("model", None), ("no actions", "none")):
            scores = make_forecast(video, horizon=8, actions=actions).scores
            assert scores is not None
            errors[row].append(scores.mse["model"])
        errors["copy_last"].append(scores.mse["copy_last"])
    model, without, copied = (float(psnr_of(torch.stack(e).mean())) for e in errors.values())
    assert model > copied + 1.5
    assert model > without


def test_actions_change_the_future(shipped: Run) -> None:
    left, right = (future(shipped, torch.full((11,), action), 8)[0] for action in (5, 4))
    assert not torch.equal(left, right)


def test_what_ships_is_small() -> None:
    # The repository is to stay under 60 MB; beside these it has about 3 MB.
    files = [f for folder in ("models", "tokenizers") for f in (ROOT / folder).rglob("*")]
    assert sum(f.stat().st_size for f in files if f.is_file() and "tokenizer" not in f.parts[-2:-1]) < 45_000_000
