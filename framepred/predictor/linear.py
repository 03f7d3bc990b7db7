"""Products with weights, where a Llama's time goes."""

import platform
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

_ROWS = 8
"""Rows below which a product waits for the weights, not for the multipliers."""

_laid_out = WeakTensorKeyDictionary()
"""Weights that stay as they are → {rows: (version, those rows as the products of this processor want them)}."""


class Linear(nn.Linear):
    """`nn.Linear` without a bias, by `linear`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


def linear(x: Tensor, weight: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
    """Multiply x (…, K) with weight (N, K), or with a half-open range of its rows → (…, N).

    torch multiplies fp32 on CPUs by MKL, which takes twice the time of oneDNN on a processor that Intel did not make
    (scripts/bench_rollout); without gradients it is oneDNN there. Weights that are not trained are kept as the products
    want them too, at the price of their memory once more: in oneDNN's layout, or for MKL (K, N). Up to a third less
    time, as few rows wait for weights.
    """
    if plain_inference(x) and pays(x.numel() // x.shape[-1]):
        made = laid_out(weight, rows)
        if made is not None:
            # Some of each sample's rows, as they lie, torch would multiply sample by sample.
            return multiply(x.contiguous(), made)
        if weight.dtype == torch.float32 and not _intel():
            return _by_onednn(x, _part(weight, rows))
    return F.linear(x, _part(weight, rows))


def pays(rows: int) -> bool:
    """Say whether so many rows are multiplied sooner with weights that are laid out; with MKL any number is."""
    return _intel() or (rows >= _ROWS and torch.backends.mkldnn.is_available())


def laid_out(weight: Tensor, rows: tuple[int, int] | None = None) -> Tensor | None:
    """Return a weight (N, K) fp32 as `multiply` wants it, made once; None if it may change past its version counter.

    Training changes it so.
    """
    if weight.requires_grad or weight.is_inference() or weight.dtype != torch.float32:
        return None
    kept = _laid_out.setdefault(weight, {})
    version, made = kept.get(rows, (None, None))
    if version != weight._version:
        part = _part(weight, rows).detach()
        made = part.t().contiguous() if _intel() else torch.ops.mkldnn._reorder_linear_weight(part, None)
        kept[rows] = weight._version, made
    return made


def multiply(x: Tensor, made: Tensor) -> Tensor:
    """Multiply x (…, K) with what `laid_out` made of a weight (N, K) → (…, N)."""
    return x @ made if _intel() else _by_onednn(x, made)


def add_product(total: Tensor, x: Tensor, made: Tensor) -> Tensor:
    """Add to a total (R, N), in place, the product of x (R, K) with what `laid_out` made of a weight (N, K)."""
    return total.addmm_(x, made) if _intel() else total.add_(_by_onednn(x, made))


def _by_onednn(x: Tensor, weight: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return made


def plain_inference(x: Tensor) -> bool:
    """Say whether fp32 numbers are computed with on a CPU, and no gradients will be asked for."""
    # Asked first: torch.compile cannot see past the question for inference mode, and would cut its graph here.
    if torch.compiler.is_compiling():
        return False
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _intel() -> bool:
    """Say whether MKL is at its best. Told by the name and not timed, as other sums would now and then draw others."""
    info = Path("/proc/cpuinfo")
    return torch.backends.mkl.is_available() and "GenuineIntel" in (
        info.read_text() if info.exists() else platform.processor()
    )


def _part(weight: Tensor, rows: tuple[int, int] | None) -> Tensor:
    return weight if rows is None else weight[slice(*rows)]
