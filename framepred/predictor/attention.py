"""Grouped-query attention with rotary positions, however the rows and what they share are stored."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.predictor.kv_cache import KVCache
from framepred.predictor.linear import plain_inference


def attend(
    qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
) -> Tensor:
    """Heads (B, L, H + 2 K, d) of queries, keys and values → what the queries read (B, L, H · d)."""
    batch, length, heads, _ = qkv.shape
    heads -= 2 * kv_heads
    rotated = _rotate(qkv[:, :, : heads + kv_heads], rope)
    q, k = rotated[:, :, :heads].transpose(1, 2), rotated[:, :, heads:].transpose(1, 2)
    v = qkv[:, :, heads + kv_heads :].transpose(1, 2)
    if cache is not None:
        k, v = cache.write(layer, k, v)
    if cache is not None and cache.prefix.shape[4]:
        prefix_k, prefix_v = cache.prefix[layer, :, 0]
        y = _attend_to_both(q, prefix_k, prefix_v, k, v, mask)
    elif cache is None and q.dtype == torch.bfloat16 and q.device.type == "cpu":
        y = _attend_in_blocks(q, k, v)
    else:
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and length > 1, enable_gqa=heads != kv_heads
        )
    return y.transpose(1, 2).reshape(batch, length, -1)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    # In autocast heads are narrower than what they come from, and stay so.
    cos, sin = rope[0].to(x.dtype), rope[1].to(x.dtype)
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), -1), sin)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, size: int = 256) -> Tensor:
    """Causal attention of q (B, H, L, d) to k, v (B, K, L, d), each block of queries to no key after it.

    On CPUs torch's fused bf16 attention takes a quarter longer, forward and backward, even with AMX (without it, twice
    as long: scripts/bench_train). torch.compile would make a softmax of its own here, which is slower than torch's.
    """
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).flatten(0, 1) for x in (k, v))
    y: Tensor = _Blocks.apply((q * q.shape[-1] ** -0.5).flatten(0, 1), k, v, size)
    return y.view_as(q)


class _Blocks(torch.autograd.Function):
    """`_attend_in_blocks` of scaled q, k, v (N, L, d) → (N, L, d).

    Autograd would mask the scores' gradient, zero already, and make a whole gradient of k and of v for each block.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, size: int) -> Tensor:
        y, weights = torch.empty_like(v), []
        for block, before in _blocks(q.shape[1], size):
            scores = q[:, block] @ k[:, before].mT
            last = scores[:, :, block]
            last.masked_fill_(torch.ones_like(last[0], dtype=torch.bool).triu_(1), -torch.inf)
            weights.append(scores.softmax(-1))
            y[:, block] = weights[-1] @ v[:, before]
        ctx.size = size
        ctx.save_for_backward(q, k, v, *weights)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, *weights = ctx.saved_tensors
        dy, dq, dk, dv = dy.contiguous(), torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        for w, (block, before) in zip(weights, _blocks(q.shape[1], ctx.size), strict=True):
            dscores = torch._softmax_backward_data(dy[:, block] @ v[:, before].mT, w, -1, w.dtype)
            dq[:, block] = dscores @ k[:, before]
            dk[:, before].baddbmm_(dscores.mT, q[:, block])
            dv[:, before].baddbmm_(w.mT, dy[:, block])
        return dq, dk, dv, None


def _blocks(length: int, size: int) -> list[tuple[slice, slice]]:
    """Return each block of positions, and those that it sees."""
    ends = [*range(size, length, size), length]
    return [(slice(start, end), slice(end)) for start, end in zip([0, *ends], ends, strict=False)]


_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
"""What `scaled_dot_product_attention` is on CPUs → (y, the logarithm of each query's sum of weights)."""


def _attend_to_both(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from q (B, H, L, d) to a prefix (K, P, d) that all rows share and to each row's own (B, K, T, d).

    All rows' queries meet the prefix in one product, which reads it once, not once a row. The mask is of all heads
    that share keys (`KVCache.visible`).
    """
    batch, heads, length, dim = q.shape
    kv_heads, prefix = prefix_k.shape[:2]
    q = q.reshape(batch, kv_heads, -1, dim)
    folded = q.transpose(0, 1).reshape(kv_heads, -1, dim)
    if plain_inference(q):
        # Each part by itself, in one step; how much of all each had to tell weighs them.
        read, told = _FUSED(folded[None], prefix_k[None], prefix_v[None])
        y, own_told = _FUSED(q, k, v, attn_mask=mask)
        read, told = (x.view(kv_heads, batch, -1, *x.shape[3:]).transpose(0, 1) for x in (read, told))
        return y.lerp_(read, told.sub(own_told).sigmoid_()[..., None]).view(batch, heads, length, dim)
    scale = dim**-0.5
    shared = (folded * scale @ prefix_k.mT).view(kv_heads, batch, -1, prefix).transpose(0, 1)
    own = q * scale @ k.mT
    weights = torch.cat([shared, own if mask is None else own + mask], -1).softmax(-1)
    read = weights[..., :prefix].transpose(0, 1).reshape(kv_heads, -1, prefix) @ prefix_v
    y = read.view(kv_heads, batch, -1, dim).transpose(0, 1) + weights[..., prefix:] @ v
    return y.reshape(batch, heads, length, dim)
