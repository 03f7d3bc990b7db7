"""Quantizers: continuous codes ⇄ ids, one contract for all.

A quantizer maps z (B, D, h, w) → (z_q, ids int64 (B, h, w), auxiliary loss) and ids → z_q.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.config.recipe import TokenizerRecipe


class Quantizer(nn.Module):
    """What all of them are: `dim` channels in, ids below `codebook_size` out.

    An id is a number of `digits`, the least first: each the count of values it has.
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


class EMAVQ(Quantizer):
    """Vector quantization, codes moved by exponential averages, dead ones revived (arXiv 1711.00937).

    `cosine` compares directions alone: codes and inputs lie on the unit sphere (arXiv 2110.04627).
    `rotation` turns the gradient as the input is turned onto its code (arXiv 2410.06424).
    """

    def __init__(
        self, codebook_size: int, dim: int, decay: float = 0.99, commitment: float = 0.25,
        cosine: bool = False, rotation: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.dim, self.digits, self.decay, self.commitment = dim, (codebook_size,), decay, commitment
        self.cosine, self.rotation = cosine, rotation
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
        passed = _rotated(rows, quantized) if self.rotation else rows
        return (passed + (quantized - passed).detach()).movedim(-1, 1), ids.view(rows.shape[:-1]), loss

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


class ResidualVQ(Quantizer):
    """Vector quantizers in a row, each for what the ones before left over (arXiv 2107.03312).

    Their ids are the digits of one: a slot stays one token, whose alphabet is the product of the codebooks.
    """

    def __init__(self, codebook_size: int, dim: int, depth: int, rotation: bool = False) -> None:
        super().__init__()
        self.dim, self.rotation = dim, rotation
        self.base = round(codebook_size ** (1 / depth))
        assert self.base**depth == codebook_size, "the recipe is validated"
        self.digits = (self.base,) * depth
        self.quantizers = nn.ModuleList([EMAVQ(self.base, dim) for _ in range(depth)])

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = z.float()
        total = torch.zeros_like(z)
        ids = torch.zeros(z.shape[0], *z.shape[2:], dtype=torch.int64, device=z.device)
        losses = []
        for place, quantizer in enumerate(self.quantizers):
            quantized, digits, loss = quantizer(z - total)
            total = total + quantized.detach()
            ids = ids + digits * self.base**place
            losses.append(loss)
        passed = _rotated(z.movedim(1, -1), total.movedim(1, -1)).movedim(-1, 1) if self.rotation else z
        return passed + (total - passed).detach(), ids, torch.stack(losses).mean()

    def lookup(self, ids: Tensor) -> Tensor:
        codes = [q.lookup(ids // self.base**i % self.base) for i, q in enumerate(self.quantizers)]  # type: ignore[operator]
        return torch.stack(codes).sum(0)


class LookupFree(Quantizer):
    """One bit a channel: the signs are the code, no codebook is searched (LFQ, arXiv 2310.05737).

    `spherical` puts inputs and codes on the unit sphere (BSQ, arXiv 2406.07548). The entropy loss wants each
    input sure of its code and all codes used alike.
    """

    def __init__(self, bits: int, spherical: bool, entropy_weight: float) -> None:
        super().__init__()
        self.dim, self.digits, self.spherical = bits, (2,) * bits, spherical
        self.entropy_weight = entropy_weight
        self.scale = bits**-0.5 if spherical else 1.0
        self.register_buffer("basis", 2 ** torch.arange(bits).view(-1, 1, 1), persistent=False)
        self.basis: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = F.normalize(z.float(), dim=1) if self.spherical else z.float()
        ids = ((z > 0) * self.basis).sum(1)
        codes = self.lookup(ids)
        # No commitment loss: it pulls every bit to where it is already, and the codes collapse within 300 steps.
        loss = self.entropy_weight * self._entropy_loss(z) if self.training else z.new_zeros(())
        return z + (codes - z).detach(), ids, loss

    def lookup(self, ids: Tensor) -> Tensor:
        return ((ids[:, None] // self.basis % 2) * 2 - 1) * self.scale

    def _entropy_loss(self, z: Tensor) -> Tensor:
        # An input on its code is sure of its bit to 98%: the gradient still reaches every input.
        logits = (4 * z / self.scale).movedim(1, -1).flatten(0, -2)
        sure = (F.softplus(logits) - logits * torch.sigmoid(logits)).mean()
        # Bits are independent given the input, not among inputs: each may be balanced and all still say the same. A
        # code's chance is the product of its halves', so the mean over inputs is one product of matrices.
        half = self.dim // 2
        chances = _chances(logits[:, :half]).T @ _chances(logits[:, half:]) / len(logits)
        mean = _mean_over_processes(chances).clamp(min=1e-9)
        return sure + (mean * mean.log()).sum() / self.dim


def _chances(logits: Tensor) -> Tensor:
    """Logits of bits (n, b) → chances (n, 2^b) of all their values."""
    chances = logits.new_ones(len(logits), 1)
    for bit in logits.unbind(1):
        one = torch.sigmoid(bit)[:, None]
        chances = torch.cat([chances * (1 - one), chances * one], 1)
    return chances


def _rotated(z: Tensor, codes: Tensor) -> Tensor:
    """Turn and stretch rows z (..., D) onto their codes by a map that gradients take for constant."""
    with torch.no_grad():
        start, end = F.normalize(z, dim=-1), F.normalize(codes, dim=-1)
        middle = F.normalize(start + end, dim=-1)
        stretch = codes.norm(dim=-1, keepdim=True) / z.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    mirrored = z - 2 * (z * middle).sum(-1, keepdim=True) * middle
    return stretch * (mirrored + 2 * (z * start).sum(-1, keepdim=True) * end)


def _pick(rows: Tensor, count: int) -> Tensor:
    """Take `count` rows spread evenly over a batch: no generator, so a resumed run repeats it."""
    index = torch.arange(count, device=rows.device) * len(rows) // count % len(rows)
    # Copies of one row would stay tied for ever.
    return rows[index].detach() + 1e-3 * torch.linspace(-1, 1, count, device=rows.device)[:, None]


def _gathered(rows: Tensor) -> Tensor:
    """Return the rows of all processes in the order of the whole batch."""
    if not torch.distributed.is_initialized():
        return rows
    parts = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def _mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean over processes; averaged over them, its gradient is that of one process with all rows."""
    if not torch.distributed.is_initialized():
        return value
    mean = value.detach().clone()
    torch.distributed.all_reduce(mean)
    return value + (mean / torch.distributed.get_world_size() - value).detach()


def _ema(recipe: TokenizerRecipe) -> EMAVQ:
    cosine, rotation = recipe.distance == "cosine", recipe.gradient == "rotation"
    return EMAVQ(recipe.codebook_size, recipe.code_dim, cosine=cosine, rotation=rotation)


def _lookup_free(recipe: TokenizerRecipe) -> LookupFree:
    bits = recipe.codebook_size.bit_length() - 1
    return LookupFree(bits, recipe.quantizer == "bsq", recipe.entropy_weight)


QUANTIZERS: dict[str, Callable[[TokenizerRecipe], Quantizer]] = {
    "fsq": lambda recipe: FSQ(recipe.levels),
    "ema": _ema,
    "lfq": _lookup_free,
    "bsq": _lookup_free,
    "residual": lambda recipe: ResidualVQ(
        recipe.codebook_size, recipe.code_dim, recipe.residual_depth, recipe.gradient == "rotation"
    ),
}
