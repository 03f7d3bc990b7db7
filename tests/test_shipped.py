"""The run that comes along works on the held-out clips that come with it."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch

from framepred.decoding.sampling import Sampling
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.metrics import psnr_of
from framepred.evaluation.scores import score_forecast
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
    scores = score_forecast(frames[None, 4:], frames[4:], frames[:4], shipped.tokenizer)
    assert float(psnr_of(scores.rows["ceiling"].mse.mean())) >= 27


def test_the_tokenizer_keeps_footage_whose_first_half_it_knows(shipped: Run) -> None:
    frames = read_video(ROOT / "examples" / "box.mp4", shipped.tokenizer.frame_size).frames
    scores = score_forecast(frames[None, 4:], frames[4:], frames[:4], shipped.tokenizer)
    assert float(psnr_of(scores.rows["ceiling"].mse.mean())) >= 26


def test_both_decoders_give_the_same_frames(shipped: Run) -> None:
    actions = read_actions(actions_path(CLIP))[0]
    fast, slow = (future(shipped, actions, 4, decoder)[1] for decoder in ("speculative", "sequential"))
    assert torch.equal(fast, slow)


def test_the_next_frame_is_nearer_than_the_last_where_the_clip_moves(shipped: Run) -> None:
    frames, actions = read_video(CLIP).frames, read_actions(actions_path(CLIP))[0]
    predicted, copied = 0.0, 0.0
    for start in (30, 36, 42):
        context, truth = frames[start : start + 4], frames[start + 4 : start + 5]
        made = list(predict(shipped, shipped.tokenizer.encode(context), actions[start:], 1, 1, Sampling(seed=3)))
        rows = score_forecast(made[0].frames[:, None], truth, context, shipped.tokenizer).rows
        predicted, copied = predicted + float(rows["model"].mse), copied + float(rows["copy_last"].mse)
    assert predicted < 0.75 * copied


@pytest.mark.slow
def test_it_predicts_better_than_copying(shipped: Run, tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    errors: dict[str, list[torch.Tensor]] = {"model": [], "no actions": [], "copy_last": []}
    for video in record(Recording("VizdoomMyWayHome-v1", episodes=8, steps=10, seed=5000), tmp_path):
        for row, actions in (("model", None), ("no actions", "none")):
            scores = make_forecast(video, horizon=6, actions=actions, ensemble=4).scores
            assert scores is not None
            errors[row].append(scores.rows["model"].mse)
        errors["copy_last"].append(scores.rows["copy_last"].mse)
    model, without, copied = (float(psnr_of(torch.stack(e).mean())) for e in errors.values())
    assert model > copied + 1.5
    assert model > without


def shift_of(before: torch.Tensor, after: torch.Tensor) -> int:
    """Return by how many columns, to the right, a frame uint8 (3, H, W) fits the one before it best."""
    one, other, width = before.float().mean(0), after.float().mean(0), before.shape[-1]

    def distance(columns: int) -> float:
        left, right = max(0, columns), width + min(0, columns)
        return float((one[:, left - columns : right - columns] - other[:, left:right]).square().mean())

    return min(range(-16, 17), key=distance)


@pytest.mark.parametrize(("turn", "sign"), [(4, -1), (5, 1)])
def test_a_turn_moves_the_whole_picture_the_right_way(shipped: Run, turn: int, sign: int) -> None:
    actions = torch.cat([read_actions(actions_path(CLIP))[0][:3], torch.full((2,), turn)])
    predicted, _, frames = future(shipped, actions, 2)
    shown = [frames[3], *predicted[0]]
    assert all(3 <= sign * shift_of(a, b) <= 14 for a, b in pairwise(shown))


def race(start: int, horizon: int, steer: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a future of racing-64's clip from a frame on, uint8 (T, 3, H, W), and the clip's frames from there on."""
    run, clip = load_run("racing-64"), ROOT / "models" / "racing-64" / "start.mp4"
    frames, actions = read_video(clip).frames[start:], read_actions(actions_path(clip))[0][start:].clone()
    if steer is not None:
        actions[3:, 0] = steer
    known = run.tokenizer.encode(frames[:4], actions[:3])
    made = predict(run, known, actions, horizon, 1, Sampling(run.temperature, seed=3), first=frames[0])
    return torch.cat([step.frames for step in made]), frames


def test_a_race_is_nearer_than_the_last_frame() -> None:
    predicted, copied = 0.0, 0.0
    for start in (0, 8, 16, 24):
        made, frames = race(start, 4)
        predicted += float((made.float() - frames[4:8].float()).square().mean())
        copied += float((frames[3].float() - frames[4:8].float()).square().mean())
    assert predicted < 0.75 * copied


def test_a_car_is_steered_the_right_way() -> None:
    # What lies ahead, the upper half, goes to the right of a car that turns left.
    left, right = (race(8, 3, steer)[0][..., :32, :] for steer in (-1.0, 1.0))
    moved = [sum(shift_of(a, b) for a, b in pairwise(shown)) for shown in (left, right)]
    assert moved[0] > moved[1]


def test_what_ships_is_small() -> None:
    # The repository is to stay under 60 MB; beside these it has about 3 MB.
    files = [f for folder in ("models", "tokenizers") for f in (ROOT / folder).rglob("*")]
    assert sum(f.stat().st_size for f in files if f.is_file() and "tokenizer" not in f.parts[-2:-1]) < 45_000_000
