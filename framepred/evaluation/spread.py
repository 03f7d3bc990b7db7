"""Is the truth inside the spread of the samples? Energy score and rank histogram of S futures."""

import torch
from torch import Tensor


def energy(samples: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Score S ≥ 2 futures uint8 (S, T, 3, H, W) as a distribution → (energy score, error, spread), float64 (T,).

    Distances are root mean squares over a frame's pixels in [0, 1]. Error is the mean distance of a sample
    to the truth, spread of a sample to another; the energy score is error - spread / 2, lower is better,
    and no distribution scores better in expectation than the true one (Gneiting & Raftery 2007).
    """
    count = len(samples)
    x = samples.flatten(2).transpose(0, 1).double() / 255
    y = truth.flatten(1).double()[:, None] / 255
    squares = x.square().mean(-1)
    between = squares[:, :, None] + squares[:, None] - 2 * x @ x.transpose(1, 2) / x.shape[-1]
    distances = between.clamp(min=0).sqrt()
    # Rounding leaves a sample at a small distance from itself.
    spread = (distances.sum((1, 2)) - distances.diagonal(dim1=1, dim2=2).sum(1)) / (count * (count - 1))
    error = (x - y).square().mean(-1).sqrt().mean(1)
    return error - spread / 2, error, spread


def rank_histogram(samples: Tensor, truth: Tensor) -> Tensor:
    """Count where the truth's value falls among the samples' at each pixel → float64 (S + 1,), summing to 1.

    Flat where truth and samples are drawn alike; full at both ends where the samples are too much alike.
    Where the truth equals n samples, the n + 1 ranks it could have share the count.
    """
    count = len(samples)
    less, equal = torch.zeros_like(truth, dtype=torch.int64), torch.zeros_like(truth, dtype=torch.int64)
    for sample in samples:
        less += sample < truth
        equal += sample == truth
    pairs = torch.bincount((less * (count + 1) + equal).flatten(), minlength=(count + 1) ** 2).double()
    result = torch.zeros(count + 1, dtype=torch.float64)
    for pair in pairs.nonzero()[:, 0].tolist():
        low, ties = divmod(pair, count + 1)
        result[low : low + ties + 1] += pairs[pair] / (ties + 1)
    return result / result.sum()
