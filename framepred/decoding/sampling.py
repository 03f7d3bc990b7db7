"""Logits and counter-based noise → token; pure functions.

The noise of a token depends only on (seed, sample, frame, position): whatever the decoder, batch or
machine load, the same token is drawn.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.config.recipe import check_sampling


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: `temperature` 0 or `top_k` 1 is greedy; `top_k` 0 and `top_p` 1 keep all ids."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_sampling(self.temperature, self.top_k, self.top_p, self.seed)

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is taken, whatever the noise."""
        return self.temperature == 0 or self.top_k == 1


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 counters in place (the finalizer of SplitMix64, in wrapping arithmetic)."""
    x.bitwise_xor_(_shift(x, 30)).mul_(-4658895280553007687)
    x.bitwise_xor_(_shift(x, 27)).mul_(-7723592293110705685)
    return x.bitwise_xor_(_shift(x, 31))


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits).bitwise_and_((1 << (64 - bits)) - 1)


_GOLDEN = -7046029254386353131


def gumbel_noise(seed: int, samples: Tensor, frame: int, positions: Tensor, size: int) -> Tensor:
    """Return Gumbel noise float32 (S, P, size) for samples (S,), one frame and positions (P,).

    Each value is a hash of (seed, sample, frame, position, id), so it needs no state and no order.
    """
    device = positions.device
    key = torch.tensor(seed, dtype=torch.int64, device=device)
    key = _mix(key + _GOLDEN)
    key = _mix(key + samples.to(device).long() * _GOLDEN)[:, None]
    key = _mix(key + torch.tensor(frame + 1, device=device) * -4417276706812531889)
    key = _mix(key + (positions + 1) * -2643881736870682267)[:, :, None]
    pairs = (torch.arange((size + 1) // 2, device=device) + 1) * _GOLDEN
    noise = torch.empty(*key.shape[:2], size, device=device)
    # Some rows at a time: what the steps pass on to each other stays in a processor's cache (measured: half the time).
    rows = max(1, (_CACHED_BYTES // 8 if device.type == "cpu" else noise.numel()) // size)
    for part, made in zip(key.view(-1, 1).split(rows), noise.view(-1, size).split(rows), strict=True):
        _gumbel(_mix(part + pairs), made)
    return noise


_CACHED_BYTES = 2**20
"""What the second-level cache of any present processor holds."""


def _gumbel(bits: Tensor, noise: Tensor) -> None:
    """Hashes int64 (R, ⌈size / 2⌉), each of which serves two ids, fill noise float32 (R, size)."""
    noise.copy_(bits.view(torch.int32)[..., : noise.shape[-1]].bitwise_and_(0x7FFFFFFF))
    # An exponential is -log(1 - u): small ones, which win, keep all digits of a small u.
    noise.add_(0.5).mul_(-(2.0**-31)).clamp_(min=2.0**-24 - 1).log1p_().neg_().log_().neg_()


_COLD = 1e-6


def choose(logits: Tensor, noise: Tensor | None, sampling: Sampling) -> Tensor:
    """Logits float (…, V) and noise (…, V) → token int64 (…): Gumbel-max over what the settings keep."""
    if sampling.greedy:
        return logits.max(-1).indices
    assert noise is not None
    scaled = logits.float()
    if sampling.temperature < _COLD:
        # Divided by it, several logits would be infinite, and equal.
        scaled = scaled - scaled.max(-1, keepdim=True).values
    if sampling.temperature != 1:
        scaled = scaled / max(sampling.temperature, 1e-30)
    if 0 < sampling.top_k < scaled.shape[-1]:
        least = scaled.topk(sampling.top_k).values[..., -1:]
        above, equal = scaled > least, scaled == least
        # Of equal ones the first by index, so that exactly k are kept.
        first = equal.cumsum(-1) <= sampling.top_k - above.sum(-1, keepdim=True)
        scaled = scaled.masked_fill(~(above | equal & first), -torch.inf)
    if sampling.top_p < 1:
        ordered, order = scaled.sort(descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        dropped = torch.zeros_like(scaled, dtype=torch.bool).scatter(-1, order, before >= sampling.top_p)
        scaled = scaled.masked_fill(dropped, -torch.inf)
    return (scaled + noise).max(-1).indices
