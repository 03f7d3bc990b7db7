"""The numbers that evaluation is made of, each against a slow computation of its definition."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from framepred.evaluation.bootstrap import Quantity, interval, resamplings
from framepred.evaluation.metrics import change, copy_last, extrapolate, moving_error
from framepred.evaluation.perceptual import Moments
from framepred.evaluation.spread import energy, rank_histogram


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_extrapolation_goes_on_as_the_last_two_frames_did() -> None:
    context = torch.tensor([10, 20, 50]).view(3, 1, 1, 1).expand(3, 3, 4, 4).to(torch.uint8)
    assert extrapolate(context, 8)[:, 0, 0, 0].tolist() == [80, 110, 140, 170, 200, 230, 255, 255]
    assert extrapolate(context.flip(0), 3)[:, 0, 0, 0].tolist() == [0, 0, 0]
    assert torch.equal(extrapolate(context[:1], 3), copy_last(context[:1], 3))


def test_motion_weighting_is_the_definition_and_forgets_what_stands_still() -> None:
    truth, before, samples = noise((3, 3, 6, 5), 0), noise((3, 6, 5), 1), noise((2, 3, 3, 6, 5), 2)
    error, weight = moving_error(samples, truth, before), change(truth, before)
    assert error.shape == (2, 3)
    for s in range(2):
        for t in range(3):
            last = before if t == 0 else truth[t - 1]
            w = ((truth[t].double() - last.double()).abs() / 255).mean(0)
            e = ((samples[s, t].double() - truth[t].double()) / 255).square().mean(0)
            assert float(error[s, t]) == pytest.approx(float((w * e).mean()))
            assert float(weight[t]) == pytest.approx(float(w.mean()))
    still = truth[:1].expand(4, -1, -1, -1)
    error, weight = moving_error(noise((4, 3, 6, 5), 3), still, still[0]), change(still, still[0])
    assert error.sum() == weight.sum() == 0


def test_the_energy_score_is_the_definition() -> None:
    samples, truth = noise((5, 3, 3, 6, 6), 6), noise((3, 3, 6, 6), 7)
    score, error, spread = energy(samples, truth)

    def distance(x: Tensor, y: Tensor) -> float:
        return float(((x.double() - y.double()) / 255).square().mean().sqrt())

    for t in range(3):
        to_truth = np.mean([distance(s[t], truth[t]) for s in samples])
        between = np.mean([distance(samples[i, t], samples[j, t]) for i in range(5) for j in range(5) if i != j])
        assert float(error[t]) == pytest.approx(to_truth)
        assert float(spread[t]) == pytest.approx(between)
        assert float(score[t]) == pytest.approx(to_truth - between / 2)


def test_the_energy_score_prefers_the_right_distribution() -> None:
    generator = torch.Generator().manual_seed(8)

    def draw(count: int, scale: float) -> Tensor:
        return (128 + scale * torch.randn(count, 40, 3, 8, 8, generator=generator)).clamp(0, 255).to(torch.uint8)

    truth = draw(1, 20)[0]
    right, narrow, wide = (float(energy(draw(8, scale), truth)[0].mean()) for scale in (20, 4, 60))
    assert right < narrow
    assert right < wide


def test_identical_samples_do_not_spread() -> None:
    same = noise((1, 2, 3, 8, 8), 9).expand(4, -1, -1, -1, -1)
    assert float(energy(same, noise((2, 3, 8, 8), 10))[2].max()) == pytest.approx(0, abs=1e-6)


def test_ranks_count_where_the_truth_falls_and_share_ties() -> None:
    samples = torch.tensor([10, 20, 20, 30], dtype=torch.uint8).view(4, 1, 1, 1, 1)

    def ranks(value: int) -> list[float]:
        return rank_histogram(samples, torch.full((1, 1, 1, 1), value, dtype=torch.uint8)).tolist()

    assert ranks(5) == [1, 0, 0, 0, 0]
    assert ranks(15) == [0, 1, 0, 0, 0]
    assert ranks(35) == [0, 0, 0, 0, 1]
    assert ranks(20) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 0])
    assert ranks(10) == [0.5, 0.5, 0, 0, 0]


def test_a_calibrated_spread_has_flat_ranks_and_a_narrow_one_full_ends() -> None:
    generator = torch.Generator().manual_seed(11)
    draws = torch.randint(0, 256, (8, 4, 3, 32, 32), generator=generator).to(torch.uint8)
    flat = rank_histogram(draws[:7], draws[7])
    assert float((flat - 1 / 8).abs().max()) < 0.01
    narrow = rank_histogram((draws[:7] // 8) + 112, draws[7])
    assert float(narrow[0] + narrow[-1]) > 0.8


def test_pooled_decibels_are_of_the_mean_error() -> None:
    errors = np.random.default_rng(0).uniform(0.001, 0.1, (6, 4))
    quantity = Quantity(errors, np.ones_like(errors), True)
    found = interval(quantity, resamplings(6, 200, 0), 0.95)
    assert found is not None
    assert found.value == pytest.approx(10 * math.log10(1 / errors.mean()))
    assert quantity.by_horizon() == pytest.approx([10 * math.log10(1 / e) for e in errors.mean(0)], abs=1e-6)


def test_intervals_are_the_percentiles_of_resampled_means() -> None:
    values = np.random.default_rng(1).normal(3, 1, (40, 2))
    found = interval(Quantity(values, np.ones_like(values)), resamplings(40, 4000, 7), 0.9)
    assert found is not None
    generator = np.random.default_rng(2)
    means = [values[generator.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert found.value == pytest.approx(values.mean())
    assert [found.low, found.high] == pytest.approx(np.quantile(means, [0.05, 0.95]), abs=0.02)
    again = interval(Quantity(values, np.ones_like(values)), resamplings(40, 4000, 7), 0.9)
    assert again == found


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = generator.normal(0, 1, (30, 1))
        found = interval(Quantity(values, np.ones_like(values)), resamplings(30, 300, 0), 0.9)
        assert found is not None
        held += found.low <= 0 <= found.high
    assert 0.8 <= held / 200 <= 0.97


def test_a_paired_gain_is_surer_than_two_intervals() -> None:
    generator = np.random.default_rng(4)
    hard = generator.normal(0, 5, (50, 1))
    one, other = hard + 1 + generator.normal(0, 0.1, (50, 1)), hard
    weights, ones = resamplings(50, 500, 0), np.ones((50, 1))
    gain = interval(Quantity(one, ones), weights, 0.95, Quantity(other, ones))
    assert gain is not None
    assert gain.value == pytest.approx((one - other).mean())
    assert 0.9 < gain.low < gain.high < 1.1


def test_where_nothing_moves_there_is_no_value() -> None:
    zeros = np.zeros((5, 3))
    assert interval(Quantity(zeros, zeros, True), resamplings(5, 100, 0), 0.95) is None
    assert Quantity(zeros, zeros, True).by_horizon() == [None, None, None]


class Pixels(nn.Module):
    """Features of an image for torchmetrics: its pixels."""

    num_features = 12

    def forward(self, images: Tensor) -> Tensor:
        return images.double().flatten(1) / 255


def test_the_frechet_distance_is_torchmetrics() -> None:
    from framepred.io.compat import ensure_torchvision

    ensure_torchvision()
    fid = pytest.importorskip("torchmetrics.image.fid").FrechetInceptionDistance(feature=Pixels())
    fid.set_dtype(torch.float64)
    x, y = noise((60, 3, 2, 2), 5), noise((50, 3, 2, 2), 6) // 2
    fid.update(x, real=True)
    fid.update(y, real=False)
    one, other = Moments(), Moments()
    for part in (x[:10], x[10:]):
        one.add(Pixels()(part).numpy())
    other.add(Pixels()(y).numpy())
    assert one.distance(other) == pytest.approx(float(fid.compute()), rel=1e-9)
    assert one.distance(one) == pytest.approx(0, abs=1e-6)
    assert Moments().distance(one) is None
