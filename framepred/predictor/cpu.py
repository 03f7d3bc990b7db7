"""Inference in fp32 on CPUs: products with packed weights, and a Llama's layers in fewer operators.

The numbers are those of plain torch up to rounding. Only weights that cannot change are packed: all others, and all
other devices and dtypes, are left to plain torch.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from framepred.predictor.attention import attend
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.probe import plain_inference, probe

Layers = tuple[Iterable[Callable[..., Tensor]], Callable[[Tensor], Tensor]]
"""Layers (x, rope, mask, cache, the layer's number) → x, and the norm after the last."""


@dataclass(frozen=True)
class Product:
    """A way to multiply with weights (N, K) that are packed once, in the layout that the multiplication reads best."""

    pack: Callable[[Tensor], Tensor]
    multiply: Callable[[Tensor, Tensor], Tensor]
    """x (..., K), packed → (..., N)."""
    add: Callable[[Tensor, Tensor, Tensor], Tensor]
    """Add to a total (R, N), in place, the product of x (R, K) and packed."""


def _onednn(x: Tensor, packed: Tensor) -> Tensor:
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    return y


TORCH = Product(lambda weight: weight.t().contiguous(), torch.matmul, lambda total, x, packed: total.addmm_(x, packed))
ONEDNN = Product(
    lambda weight: torch.ops.mkldnn._reorder_linear_weight(weight, None),
    _onednn,
    lambda total, x, packed: total.add_(_onednn(x, packed)),
)


@probe
@torch.inference_mode()
def _onednn_is_faster() -> bool:
    """Time both products.

    torch multiplies by MKL, which takes a third less time than oneDNN on some processors and twice its time on others.
    The margin keeps the choice, and so the rounding, the same from one process to the next.
    """
    x, weight = (torch.linspace(-1, 1, rows * 256).view(rows, 256) for rows in (16, 768))
    seconds = {TORCH: math.inf, ONEDNN: math.inf}
    packed = {product: product.pack(weight) for product in seconds}
    for _ in range(12):
        for product in seconds:
            began = perf_counter()
            y = product.multiply(x, packed[product])
            seconds[product] = min(seconds[product], perf_counter() - began)
            if not torch.allclose(y, x @ weight.t(), atol=1e-3):
                return False
    return seconds[ONEDNN] < 0.8 * seconds[TORCH]


@cache
def product() -> Product:
    """Return the product of this processor: oneDNN's where it works and is clearly faster, or torch's own."""
    return ONEDNN if _onednn_is_faster() else TORCH


_packed = WeakTensorKeyDictionary()
"""Weights → {range of rows: (the weight's version, those rows packed)}."""


def pack(weight: Tensor, rows: tuple[int, int] | None = None) -> Tensor | None:
    """Return a weight (N, K), or a half-open range of its rows, packed once; None where it is not fp32 or may change.

    A weight in training changes without a new version.
    """
    if weight.requires_grad or weight.is_inference() or weight.dtype != torch.float32:
        return None
    kept = _packed.setdefault(weight, {})
    version, packed = kept.get(rows, (None, None))
    if version != weight._version:
        packed = product().pack(_rows(weight, rows).detach())
        kept[rows] = weight._version, packed
    return packed


def linear(x: Tensor, weight: Tensor, rows: tuple[int, int] | None = None) -> Tensor:
    """Multiply x (..., K) with a weight (N, K), or with a half-open range of its rows → (..., N).

    In plain inference the weight is packed, which takes its memory once more.
    """
    if plain_inference(x) and (packed := pack(weight, rows)) is not None:
        # torch would multiply a slice of each sample sample by sample.
        return product().multiply(x.contiguous(), packed)
    return F.linear(x, _rows(weight, rows))


def _rows(weight: Tensor, rows: tuple[int, int] | None) -> Tensor:
    return weight if rows is None else weight[slice(*rows)]


_layers = WeakKeyDictionary[KVCache, Layers]()
"""Weights must not change while a cache of their keys and values is in use: its packed layers stay as long."""


def fast_layers(layers: Iterable[Any], norm: nn.RMSNorm, x: Tensor, cache: KVCache | None) -> Layers:
    """Return a Llama's layers and last norm in their fast form for the input x, or as given where there is none."""
    if not plain_inference(x):
        return layers, norm
    if cache is None:
        return pack_layers(layers, norm)
    if cache not in _layers:
        _layers[cache] = pack_layers(layers, norm)
    return _layers[cache]


def pack_layers(layers: Iterable[Any], norm: nn.RMSNorm) -> Layers:
    """Return `llama.Layer`s and the last norm with packed weights, or as given where a weight may change."""
    packed = [_pack_layer(layer) for layer in layers]
    made = [layer for layer in packed if layer is not None]
    return (made, PackedNorm(norm)) if len(made) == len(packed) else (layers, norm)


def _pack_layer(layer: Any) -> "PackedLayer | None":
    attention = layer.attention
    linears = attention.qkv, attention.out, layer.gate_up, layer.down
    # A subclass or wrapper computes more than a product: low-rank updates, for example.
    qkv, out, gate_up, down = (pack(one.weight) if type(one) is nn.Linear else None for one in linears)
    if qkv is None or out is None or gate_up is None or down is None:
        return None
    norms = PackedNorm(layer.attention_norm), PackedNorm(layer.mlp_norm)
    return PackedLayer(*norms, qkv, out, gate_up, down, attention.kv_heads, attention.head_dim, product())


class PackedNorm:
    """An RMSNorm in four operators.

    The length of x is its root mean square times the square root of its width, so that root goes into the weight.
    """

    def __init__(self, norm: nn.RMSNorm) -> None:
        width, eps = norm.weight.shape[0], norm.eps or 0.0
        self.weight = norm.weight.detach() * math.sqrt(width)
        # A tensor, because torch would turn a number into one in each call.
        self.floor = torch.tensor(math.sqrt(width * eps))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mul(x, self.weight).div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floor))


@dataclass(frozen=True)
class PackedLayer:
    """A `llama.Layer` with packed weights and without the overhead of modules, which costs small passes most."""

    attention_norm: PackedNorm
    mlp_norm: PackedNorm
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    kv_heads: int
    head_dim: int
    product: Product

    def __call__(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        (batch, length, width), multiply, add = x.shape, self.product.multiply, self.product.add
        x = x.flatten(0, 1)
        qkv = multiply(self.attention_norm(x), self.qkv).view(batch, length, -1, self.head_dim)
        x = add(x, attend(qkv, self.kv_heads, rope, mask, cache, layer).flatten(0, 1), self.out)
        gate, up = multiply(self.mlp_norm(x), self.gate_up).chunk(2, 1)
        return add(x, F.silu(gate).mul_(up), self.down).view(batch, length, width)
