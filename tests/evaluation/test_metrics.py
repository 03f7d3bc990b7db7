"""Metrics against their definitions, written a second time and slowly."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from framepred.evaluation.metrics import copy_last, motion, mse, psnr, psnr_of, ssim


def noisy(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def alike(frames: Tensor, seed: int, spread: int = 30) -> Tensor:
    change = torch.randint(-spread, spread + 1, frames.shape, generator=torch.Generator().manual_seed(seed))
    return (frames.int() + change).clamp(0, 255).to(torch.uint8)


def slow_ssim(one: Tensor, other: Tensor, side: int) -> float:
    """Wang et al. 2004 for one frame (3, H, W): a loop over channels and windows, in numpy."""
    axis = np.arange(side) - side // 2
    window = np.exp(-(axis[:, None] ** 2 + axis[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    values = []
    for x, y in zip(one.numpy() / 255, other.numpy() / 255, strict=True):
        for i in range(x.shape[0] - side + 1):
            for j in range(x.shape[1] - side + 1):
                a, b = x[i : i + side, j : j + side], y[i : i + side, j : j + side]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                c1, c2 = 0.01**2, 0.03**2
                top = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
                values.append(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)))
    return float(np.mean(values))


def test_identical_frames_score_perfectly() -> None:
    frames = noisy((3, 3, 16, 20), 0)
    assert psnr(frames, frames).tolist() == [100.0] * 3
    assert mse(frames, frames).tolist() == [0.0] * 3
    assert torch.allclose(ssim(frames, frames), torch.ones(3, dtype=torch.float64), atol=1e-12)


def test_psnr_is_the_formula_per_frame() -> None:
    truth = noisy((4, 3, 9, 7), 1)
    prediction = alike(truth, 2)
    for t, value in enumerate(psnr(prediction, truth).tolist()):
        error = np.mean((prediction[t].numpy().astype(float) - truth[t].numpy().astype(float)) ** 2)
        assert value == pytest.approx(10 * math.log10(255**2 / error), abs=1e-9)


def test_one_grey_level_off_is_48_decibels() -> None:
    frames = torch.full((1, 3, 8, 8), 7, dtype=torch.uint8)
    assert float(psnr(frames, frames + 1)) == pytest.approx(20 * math.log10(255), abs=1e-9)


def test_psnr_is_capped_at_100() -> None:
    assert psnr_of(torch.tensor([0.0, 1e-12, 1e-9, 1.0], dtype=torch.float64)).tolist() == pytest.approx(
        [100, 100, 90, 0]
    )


def test_bytes_do_not_wrap_around() -> None:
    black, white = torch.zeros(1, 3, 12, 12, dtype=torch.uint8), torch.full((1, 3, 12, 12), 255, dtype=torch.uint8)
    assert float(mse(black, white)) == 1.0
    assert float(ssim(black, white)) == pytest.approx(1e-4 / (1 + 1e-4), rel=1e-6)


def test_samples_are_scored_apart() -> None:
    truth = noisy((5, 3, 8, 8), 3)
    samples = torch.stack([alike(truth, 4), truth])
    assert psnr(samples, truth).shape == (2, 5)
    assert psnr(samples, truth)[1].tolist() == [100.0] * 5


@pytest.mark.parametrize(
    ("height", "width", "side"), [(16, 20, 11), (11, 11, 11), (10, 24, 9), (8, 8, 7), (3, 5, 3), (1, 4, 1)]
)
def test_ssim_is_the_definition(height: int, width: int, side: int) -> None:
    truth = noisy((2, 3, height, width), 5)
    prediction = torch.stack([alike(truth[0], 6), noisy((3, height, width), 7)])
    got = ssim(prediction, truth)
    assert got.shape == (2,)
    for t in range(2):
        assert float(got[t]) == pytest.approx(slow_ssim(prediction[t], truth[t], side), abs=1e-6)


def test_ssim_agrees_with_torchmetrics() -> None:
    from framepred.io.compat import ensure_torchvision

    ensure_torchvision()
    functional = pytest.importorskip("torchmetrics.functional.image")
    truth = noisy((2, 3, 32, 40), 8)
    prediction = alike(truth, 9)
    _, windows = functional.structural_similarity_index_measure(
        prediction.double() / 255, truth.double() / 255, data_range=1.0, reduction="none", return_full_image=True
    )
    # torchmetrics also counts windows over a reflected border; Wang et al. and scikit-image do not.
    theirs = windows[..., 5:-5, 5:-5].mean((-3, -2, -1))
    assert torch.allclose(ssim(prediction, truth), theirs.double(), atol=1e-4)


def test_ssim_agrees_with_skimage() -> None:
    skimage = pytest.importorskip("skimage.metrics")
    truth = noisy((1, 3, 32, 40), 8)
    prediction = alike(truth, 9)
    _, full = skimage.structural_similarity(
        prediction[0].numpy(), truth[0].numpy(), channel_axis=0, data_range=255, gaussian_weights=True,
        sigma=1.5, use_sample_covariance=False, full=True,
    )  # fmt: skip
    assert float(ssim(prediction, truth)) == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-6)


def test_more_noise_scores_worse_at_every_step() -> None:
    truth = noisy((1, 3, 32, 32), 10)
    levels = [alike(truth, 11, spread) for spread in (0, 5, 10, 20, 40, 80)]
    for metric, sign in ((mse, 1), (psnr, -1), (ssim, -1)):
        scores = [sign * float(metric(level, truth)) for level in levels]
        assert all(b > a for a, b in pairwise(scores)), metric.__name__
    # Uniform noise of ±n levels has a variance of n (n + 1) / 3, where nothing is cut off at black and white.
    grey = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    for spread in (5, 20, 80):
        expected = spread * (spread + 1) / 3 / 255**2
        assert float(mse(alike(grey, 12, spread), grey)) == pytest.approx(expected, rel=0.05)


def test_copying_repeats_the_last_context_frame() -> None:
    context = noisy((3, 3, 8, 8), 12)
    copied = copy_last(context, 4)
    assert copied.shape == (4, 3, 8, 8)
    assert all(torch.equal(frame, context[2]) for frame in copied)


def test_motion_is_the_mean_change() -> None:
    frames = torch.zeros(3, 3, 4, 4, dtype=torch.uint8)
    frames[1] = 255
    frames[2, :, :2] = 255
    assert motion(frames) == pytest.approx((1 + 0.5) / 2)
    assert motion(frames[:1]) == 0.0
    assert motion(frames[:1].expand(5, -1, -1, -1)) == 0.0
