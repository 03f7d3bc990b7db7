"""Quantizers turn an encoder's continuous output into integer ids, and ids back into codes.

A quantizer maps z (B, D, h, w) → (codes (B, D, h, w), ids int64 (B, h, w), auxiliary loss), and ids → codes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.config.recipe import TokenizerRecipe


class Quantizer(nn.Module):
    """The base class: `dim` channels in, ids below `codebook_size` out.

    An id is a number of several digits, the least significant first; `digits` holds each digit's number of values.
    """

    dim: int
    digits: tuple[int, ...]

    @property
    def codebook_size(self) -> int:
        return math.prod(self.digits)

    def lookup(self, ids: Tensor) -> Tensor:
        """Return the codes (B, D, h, w) that ids int64 (B, h, w) name."""
        raise NotImplementedError


class FSQ(Quantizer):
    """Finite scalar quantization: each channel is bounded and rounded (arXiv 2309.15505)."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.dim, self.digits = len(levels), tuple(levels)
        basis = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0)
        self.register_buffer("levels", torch.tensor(levels).view(-1, 1, 1), persistent=False)
        self.register_buffer("basis", basis.view(-1, 1, 1), persistent=False)
        self.levels: Tensor
        self.basis: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, digits = self.rounded(z)
        return codes, self.ids(digits), codes.new_zeros(())

    def places(self, z: Tensor) -> Tensor:
        """Values (B, D, h, w) → real places in [0, levels - 1] on each scale."""
        # By sigmoid, every level has a reachable centre, even counts included.
        return torch.sigmoid(z.float()) * (self.levels - 1)

    def rounded(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, D, h, w) → codes in [-1, 1], whose gradient passes through, and digits int64 (B, D, h, w)."""
        places = self.places(z)
        rounded = places + (places.round() - places).detach()
        return rounded / (self.levels - 1) * 2 - 1, places.detach().round().long()

    def ids(self, digits: Tensor) -> Tensor:
        """Digits (B, D, h, w) → ids int64 (B, h, w)."""
        return (digits * self.basis).sum(1)

    def lookup(self, ids: Tensor) -> Tensor:
        return (ids[:, None] // self.basis % self.levels).float() / (self.levels - 1) * 2 - 1


class EMAVQ(Quantizer):
    """Vector quantization with an exponential-moving-average codebook; unused codes are replaced (arXiv 1711.00937).

    With `cosine`, codes and inputs lie on the unit sphere, and only directions are compared (arXiv 2110.04627).
    """

    def __init__(
        self, codebook_size: int, dim: int, decay: float = 0.99, commitment: float = 0.25, cosine: bool = False
    ) -> None:
        super().__init__()
        self.dim, self.digits, self.decay, self.commitment = dim, (codebook_size,), decay, commitment
        self.cosine = cosine
        self.register_buffer("codebook", self._place(torch.randn(codebook_size, dim)))
        self.register_buffer("counts", torch.ones(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))
        self.codebook: Tensor
        self.counts: Tensor
        self.sums: Tensor
        self.started: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self._place(z.float().movedim(1, -1))
        flat = rows.reshape(-1, self.dim)
        if self.training:
            self._start(flat)
        distances = flat.square().sum(1, keepdim=True) - 2 * flat @ self.codebook.T + self.codebook.square().sum(1)
        ids = distances.argmin(1)
        quantized = self.codebook[ids].view(rows.shape)
        if self.training:
            self._update(flat.detach(), ids)
        loss = self.commitment * F.mse_loss(rows, quantized)
        return (rows + (quantized - rows).detach()).movedim(-1, 1), ids.view(rows.shape[:-1]), loss

    def lookup(self, ids: Tensor) -> Tensor:
        return self.codebook[ids].movedim(-1, 1)

    def _place(self, rows: Tensor) -> Tensor:
        return F.normalize(rows, dim=-1) if self.cosine else rows

    @torch.no_grad()
    def _start(self, flat: Tensor) -> None:
        if bool(self.started):
            return
        self.codebook.copy_(self._place(_pick(_gathered(flat), self.codebook_size)))
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
        self.codebook.copy_(self._place(self.sums / self.counts.clamp(min=1e-5)[:, None]))
        dead = self.counts < 0.03
        if bool(dead.any()):
            fresh = self._place(_pick(_gathered(flat), int(dead.sum())))
            self.codebook[dead], self.sums[dead], self.counts[dead] = fresh, fresh, torch.ones_like(self.counts[dead])


def _pick(rows: Tensor, count: int) -> Tensor:
    """Take `count` rows spread evenly over a batch, without randomness, so that a resumed run repeats it."""
    index = torch.arange(count, device=rows.device) * len(rows) // count % len(rows)
    # A small offset separates copies of one row, which would otherwise stay equal.
    return rows[index].detach() + 1e-3 * torch.linspace(-1, 1, count, device=rows.device)[:, None]


def _gathered(rows: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of the global batch."""
    if not torch.distributed.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


QUANTIZERS: dict[str, Callable[[TokenizerRecipe], Quantizer]] = {
    "fsq": lambda recipe: FSQ(recipe.levels),
    "ema": lambda recipe: EMAVQ(recipe.codebook_size, recipe.code_dim, cosine=recipe.distance == "cosine"),
}
