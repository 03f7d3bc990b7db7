"""Quantizers: continuous codes ⇄ ids, one contract for all.

A quantizer maps z (B, D, h, w) → (z_q, ids int64 (B, h, w), auxiliary loss) and ids → z_q.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.config import TokenizerRecipe


class FSQ(nn.Module):
    """Finite scalar quantization: each channel is bounded and rounded (arXiv 2309.15505)."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = len(levels)
        self.codebook_size = math.prod(levels)
        counts = torch.tensor(levels)
        self.register_buffer("levels", counts, persistent=False)
        self.register_buffer("basis", torch.cumprod(torch.tensor([1, *levels[:-1]]), 0), persistent=False)
        self.levels: Tensor
        self.basis: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = z.float()
        top = (self.levels - 1).float().view(-1, 1, 1)
        # Sigmoid to [0, levels - 1]: every level has a reachable centre, even counts included.
        scaled = torch.sigmoid(z) * top
        rounded = scaled + (scaled.round() - scaled).detach()
        ids = (rounded.detach().round().long() * self.basis.view(-1, 1, 1)).sum(1)
        return rounded / top * 2 - 1, ids, z.new_zeros(())

    def lookup(self, ids: Tensor) -> Tensor:
        digits = ids[:, None] // self.basis.view(-1, 1, 1) % self.levels.view(-1, 1, 1)
        return digits.float() / (self.levels - 1).float().view(-1, 1, 1) * 2 - 1


class EMAVQ(nn.Module):
    """Vector quantization, codes moved by exponential averages, dead ones revived (arXiv 1711.00937)."""

    def __init__(self, codebook_size: int, dim: int, decay: float = 0.99, commitment: float = 0.25) -> None:
        super().__init__()
        self.dim, self.codebook_size, self.decay, self.commitment = dim, codebook_size, decay, commitment
        self.register_buffer("codebook", torch.randn(codebook_size, dim))
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.started: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = z.float()
        flat = z.movedim(1, -1).reshape(-1, self.dim)
        if self.training:
            self._start(flat)
        distances = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codebook.T + self.codebook.square().sum(1)
        ids = distances.argmin(1)
        quantized = self.codebook[ids].view(*z.movedim(1, -1).shape).movedim(-1, 1)
        if self.training:
            self._update(flat.detach(), ids)
        loss = self.commitment * F.mse_loss(z, quantized.detach())
        return z + (quantized - z).detach(), ids.view(z.shape[0], *z.shape[2:]), loss

    def lookup(self, ids: Tensor) -> Tensor:
        return self.codebook[ids].movedim(-1, 1)

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        if bool(self.started):
            return
        self.codebook.copy_(_shared(_pick(flat, self.codebook_size)))
        self.sums.copy_(self.codebook)
        self.started.fill_(True)

    @torch.no_grad()
    def _update(self, flat: Tensor, ids: Tensor) -> None:
        counts = torch.bincount(ids, minlength=self.codebook_size).float()
        sums = torch.zeros_like(self.sums).index_add_(0, ids, flat)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
            torch.distributed.all_reduce(sums)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(sums, 1 - self.decay)
        self.codebook.copy_(self.sums / self.counts.clamp(min=1e-5)[:, None])
        dead = self.counts < 0.03
        if bool(dead.any()):
            fresh = _shared(_pick(flat, int(dead.sum())))
            self.codebook[dead], self.sums[dead], self.counts[dead] = fresh, fresh, torch.ones_like(self.counts[dead])


def _pick(rows: Tensor, count: int) -> Tensor:
    """Take `count` rows spread evenly over a batch: no generator, so a resumed run repeats it."""
    index = torch.arange(count, device=rows.device) * len(rows) // count % len(rows)
    # Copies of one row would stay tied for ever.
    return rows[index].detach() + 1e-3 * torch.linspace(-1, 1, count, device=rows.device)[:, None]


def _shared(rows: Tensor) -> Tensor:
    if torch.distributed.is_initialized():
        torch.distributed.broadcast(rows, 0)
    return rows


QUANTIZERS: dict[str, Callable[[TokenizerRecipe], FSQ | EMAVQ]] = {
    "fsq": lambda recipe: FSQ(recipe.levels),
    "ema": lambda recipe: EMAVQ(recipe.codebook_size, recipe.code_dim),
}
