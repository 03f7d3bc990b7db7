"""The one scorer: its properties, and that `rollout` and `eval` give the same numbers for the same clip."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.evaluation.benchmark import Benchmark, Evaluated, evaluate
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.metrics import copy_last
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.scores import WITHOUT_WEIGHTS, PixelScores, score_pixels


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def blurred(frames: Tensor) -> Tensor:
    padded = F.pad(frames.double(), (1, 1, 1, 1), mode="replicate")
    return F.avg_pool2d(padded, 3, 1).round().to(torch.uint8)


def scored(prediction: Tensor, truth: Tensor, before: Tensor) -> PixelScores:
    return score_pixels(prediction[None], truth, before, before).over_samples()


def by_frame(scores: PixelScores, measure: str) -> list[float | None]:
    return scores.quantity(measure).by_horizon()


@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(8, 20), st.integers(8, 20))
def test_the_truth_is_as_sharp_and_moves_as_much_as_itself(seed: int, length: int, height: int, width: int) -> None:
    truth = noise((length, 3, height, width), seed)
    scores = scored(truth, truth, noise((3, height, width), seed + 1))
    assert by_frame(scores, "sharpness") == [1.0] * length
    assert by_frame(scores, "motion_ratio") == [1.0] * length
    assert by_frame(scores, "frozen") == [0.0] * length


@given(st.integers(0, 10_000))
def test_a_blurred_truth_is_less_sharp(seed: int) -> None:
    truth, before = noise((3, 3, 12, 16), seed), noise((3, 12, 16), seed + 1)
    once, twice = (by_frame(scored(p, truth, before), "sharpness") for p in (blurred(truth), blurred(blurred(truth))))
    assert all(t < o < 1 for o, t in zip(once, twice, strict=True) if o is not None and t is not None)
    assert None not in once + twice


@given(st.integers(0, 10_000), st.integers(1, 5))
def test_copying_does_not_move_and_is_frozen(seed: int, length: int) -> None:
    truth, context = noise((length, 3, 8, 8), seed), noise((2, 3, 8, 8), seed + 1)
    scores = scored(copy_last(context, length), truth, context[-1])
    assert by_frame(scores, "motion_ratio") == [0.0] * length
    assert by_frame(scores, "frozen") == [1.0] * length


def test_sharpness_is_the_mean_step_between_neighbouring_pixels() -> None:
    frame = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    frame[..., 4:] = 51
    edge = PixelScores.quantity(scored(frame, frame, frame[0]), "sharpness")
    # One of seven horizontal steps is a fifth of white, no vertical one is.
    assert float(edge.numerator[0, 0]) == pytest.approx((0.2 / 7 + 0) / 2)


def test_motion_ratio_and_frozen_are_the_definition() -> None:
    truth, before, start = noise((3, 3, 8, 8), 0), noise((3, 8, 8), 1), noise((3, 8, 8), 2)
    prediction = noise((3, 3, 8, 8), 3)
    prediction[1] = prediction[0]
    nearly = prediction[1].clone()
    nearly[0, 0, 0] ^= 64
    prediction[2] = nearly
    scores = score_pixels(prediction[None], truth, start, before).over_samples()
    shown, true = torch.cat([start[None], prediction]).double(), torch.cat([before[None], truth]).double()
    moved = [float((shown[t + 1] - shown[t]).abs().mean() / (true[t + 1] - true[t]).abs().mean()) for t in range(3)]
    assert by_frame(scores, "motion_ratio") == pytest.approx(moved, abs=1e-6)
    # 64 levels at one of 192 values are a third of a grey level on average; twice that is more than half.
    assert by_frame(scores, "frozen") == [0.0, 1.0, 1.0]
    prediction[2, 0, 0, 1] ^= 64
    assert by_frame(score_pixels(prediction[None], truth, start, before).over_samples(), "frozen")[2] == 0.0


def test_where_the_truth_stands_still_or_is_even_there_is_no_ratio() -> None:
    still = torch.full((2, 3, 8, 8), 7, dtype=torch.uint8)
    scores = scored(noise((2, 3, 8, 8), 4), still, still[0])
    assert by_frame(scores, "sharpness") == by_frame(scores, "motion_ratio") == [None, None]


def test_the_best_sample_is_chosen_for_each_measure_apart() -> None:
    truth, before = noise((2, 3, 8, 8), 5), noise((3, 8, 8), 6)
    samples = torch.stack([noise((2, 3, 8, 8), 7), truth])
    scores = score_pixels(samples, truth, before, before)
    best, mean = scores.over_samples(best=True), scores.over_samples()
    assert best.psnr.tolist() == [100.0, 100.0]
    assert best.ssim.tolist() == pytest.approx([1.0, 1.0])
    assert best.mse.tolist() == [0.0, 0.0]
    assert mean.mse.tolist() == (scores.mse[0] / 2).tolist()
    assert torch.equal(best.gradient, mean.gradient)


@pytest.mark.parametrize("samples", [1, 2])
def test_rollout_and_eval_give_the_same_numbers_for_the_same_clip(
    tiny_run: Path, clips_dir: Path, samples: int
) -> None:
    clip, run = clips_dir / "clip0.mp4", str(tiny_run)
    protocol = Protocol(context=2, horizon=4, samples=samples, bootstrap=10)
    last = list(evaluate(Benchmark((str(clip),), run, protocol)))[-1]
    assert isinstance(last, Evaluated)
    rows = last.result["groups"][0]["rows"]
    for name, actions in (("model_true_actions", None), ("model_no_actions", "none")):
        forecast = make_forecast(clip, run, 2, 4, actions=actions, samples=samples, temperature=1.0)
        summary = forecast.summary()
        for measure in WITHOUT_WEIGHTS:
            for row, other in (("model", name), ("copy_last", "copy_last"), ("ceiling", "ceiling")):
                found = rows[other]["metrics"][measure]
                assert summary[measure][row] == found["by_horizon"], (measure, row)
                assert summary["mean"][row][measure] == found["value"], (measure, row)
