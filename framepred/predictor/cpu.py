"""A Llama's layers where weights stay, without gradients, in fp32 on a CPU: the same numbers in fewer steps.

A pass over few tokens waits for Python and its modules as long as for products.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.predictor.attention import attend
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.linear import Linear, add_product, laid_out, multiply

Steps = tuple[Iterable[Callable[..., Tensor]], Callable[[Tensor], Tensor]]
"""Layers (x, rope, mask, cache, the layer's number) → x, and the norm after the last."""


def lean_steps(layers: Iterable[Any], norm: nn.RMSNorm) -> Steps:
    """Return `predictor.Layer`s and their last norm as lean as they can be; as they are if a weight may change."""
    lean = [_lean(layer) for layer in layers]
    made = [layer for layer in lean if layer is not None]
    return (made, LeanNorm(norm)) if len(made) == len(lean) else (layers, norm)


def _lean(layer: Any) -> "LeanLayer | None":
    attention = layer.attention
    linears = attention.qkv, attention.out, layer.gate_up, layer.down
    # Others are more than a matrix: updates of low rank, say.
    qkv, out, gate_up, down = (laid_out(one.weight) if type(one) is Linear else None for one in linears)
    if qkv is None or out is None or gate_up is None or down is None:
        return None
    norms = LeanNorm(layer.attention_norm), LeanNorm(layer.mlp_norm)
    return LeanLayer(*norms, qkv, out, gate_up, down, attention.kv_heads, attention.head_dim)


class LeanNorm:
    """An RMSNorm in four steps: its weight is times the root of its width, by which the length of x is too long."""

    def __init__(self, norm: nn.RMSNorm) -> None:
        width, eps = norm.weight.shape[0], norm.eps or 0.0
        self.weight = norm.weight.detach() * math.sqrt(width)
        # A tensor, which a number would be made into in every call.
        self.floor = torch.tensor(math.sqrt(width * eps))

    def __call__(self, x: Tensor) -> Tensor:
        return torch.mul(x, self.weight).div_(torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floor))


@dataclass(frozen=True)
class LeanLayer:
    """A `Layer` of weights that are laid out."""

    attention_norm: LeanNorm
    mlp_norm: LeanNorm
    qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor
    kv_heads: int
    head_dim: int

    def __call__(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        batch, length, width = x.shape
        x = x.flatten(0, 1)
        qkv = multiply(self.attention_norm(x), self.qkv).view(batch, length, -1, self.head_dim)
        x = add_product(x, attend(qkv, self.kv_heads, rope, mask, cache, layer).flatten(0, 1), self.out)
        gate, up = multiply(self.mlp_norm(x), self.gate_up).chunk(2, 1)
        return add_product(x, F.silu(gate).mul_(up), self.down).view(batch, length, width)
