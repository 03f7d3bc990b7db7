"""Grouped-query attention with rotary positions; a KV cache's shared prefix is read once for all rows."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.predictor.kv_cache import KVCache
from framepred.predictor.probe import plain_inference, probe


def attend(
    qkv: Tensor, kv_heads: int, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
) -> Tensor:
    """Heads (B, L, H + 2 K, d) of queries, keys and values → attention's output (B, L, H · d)."""
    batch, length, heads, _ = qkv.shape
    heads -= 2 * kv_heads
    rotated = _rotate(qkv[:, :, : heads + kv_heads], rope)
    q, k = rotated[:, :, :heads].transpose(1, 2), rotated[:, :, heads:].transpose(1, 2)
    v = qkv[:, :, heads + kv_heads :].transpose(1, 2)
    if cache is not None:
        k, v = cache.write(layer, k, v)
    if cache is not None and cache.prefix.shape[4]:
        prefix_k, prefix_v = cache.prefix[layer, :, 0]
        y = attend_with_prefix(q, prefix_k, prefix_v, k, v, mask)
    elif cache is None and q.dtype == torch.bfloat16 and q.device.type == "cpu":
        y = attend_in_blocks(q, k, v)
    else:
        causal = mask is None and length > 1
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=heads != kv_heads)
    return y.transpose(1, 2).reshape(batch, length, -1)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    # In autocast the heads have a narrower dtype than the positions, and keep it.
    cos, sin = rope[0].to(x.dtype), rope[1].to(x.dtype)
    half = x.shape[-1] // 2
    return torch.addcmul(x * cos, torch.cat((x[..., half:], x[..., :half]), -1), sin)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, size: int = 256) -> Tensor:
    """Causal attention of q (B, H, L, d) to k, v (B, K, L, d), for training in bf16 on CPUs.

    Each block of `size` queries is multiplied only with the keys up to its end. torch's own bf16 attention on CPUs
    takes a quarter longer, forward and backward, even with AMX, and twice as long without (scripts/bench_train).
    torch.compile would replace the softmax here by its own, which is slower than torch's.
    """
    if not _blocks_work():
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1).flatten(0, 1) for x in (k, v))
    y: Tensor = _Blocks.apply((q * q.shape[-1] ** -0.5).flatten(0, 1), k, v, size)
    return y.view_as(q)


@probe
@torch.inference_mode(False)
@torch.enable_grad()
def _blocks_work() -> bool:
    """Compare the gradients with those of torch's own attention."""
    q = torch.linspace(-2, 2, 48).view(1, 6, 8).requires_grad_()
    made = _Blocks.apply(q * q.shape[-1] ** -0.5, q, q, 4)
    expected = F.scaled_dot_product_attention(q, q, q, is_causal=True)
    pairs = zip(*(torch.autograd.grad(y.square().sum(), q) for y in (made, expected)), strict=True)
    return all(torch.allclose(mine, theirs, atol=1e-4) for mine, theirs in pairs)


class _Blocks(torch.autograd.Function):
    """`attend_in_blocks` of scaled q, k, v (N, L, d) → (N, L, d).

    Autograd would mask the scores' gradient, which is zero already, and make full gradients of k and v for each block.
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
    """Return each block of positions, and the positions up to its end."""
    ends = [*range(size, length, size), length]
    return [(slice(start, end), slice(end)) for start, end in zip([0, *ends], ends, strict=False)]


def attend_with_prefix(
    q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None
) -> Tensor:
    """Attend from q (B, H, L, d) to a prefix (K, P, d) that all rows share and to each row's own (B, K, T, d).

    The prefix is read once, not once a row: all rows' queries are multiplied with it together. The mask, added to the
    scores of the own positions, is (1 or B, 1, H / K · L, T): all heads that share keys stand below each other
    (`KVCache.visible`).
    """
    batch, heads, length, dim = q.shape
    q = q.reshape(batch, len(prefix_k), -1, dim)
    way = _by_flash if plain_inference(q) and _flash_works() else _by_softmax
    return way(q, prefix_k, prefix_v, k, v, mask).reshape(batch, heads, length, dim)


def _by_softmax(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """One softmax over the scores of both parts; q and the result are (B, K, H / K · L, d)."""
    q, prefix = q * q.shape[-1] ** -0.5, prefix_k.shape[1]
    shared, own = _unfold(_fold(q) @ prefix_k.mT, len(q)), q @ k.mT
    weights = torch.cat([shared, own if mask is None else own + mask], -1).softmax(-1)
    return _unfold(_fold(weights[..., :prefix]) @ prefix_v, len(q)) + weights[..., prefix:] @ v


def _by_flash(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """As `_by_softmax`, one fused attention for each part: the log-sum-exp of their scores gives the parts' weights."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    shared, shared_sum = (_unfold(x[0], len(q)) for x in flash(_fold(q)[None], prefix_k[None], prefix_v[None]))
    own, own_sum = flash(q, k, v, attn_mask=mask)
    y: Tensor = own.lerp_(shared, shared_sum.sub(own_sum).sigmoid_()[..., None])
    return y


@probe
def _flash_works() -> bool:
    """Compare the numbers with those of the plain softmax."""
    x = torch.linspace(-2, 2, 96)
    q, k, mask = x.view(2, 2, 6, 4), x.flip(0).view(2, 2, 6, 4), x[:36].view(1, 1, 6, 6)
    parts = q, k[0], q[0], k, q, mask
    return torch.allclose(_by_flash(*parts), _by_softmax(*parts), atol=1e-5)


def _fold(x: Tensor) -> Tensor:
    """(B, K, R, n) → (K, B · R, n)."""
    return x.transpose(0, 1).flatten(1, 2)


def _unfold(x: Tensor, batch: int) -> Tensor:
    """(K, B · R, ...) → (B, K, R, ...): the inverse of `_fold`."""
    return x.unflatten(1, (batch, -1)).transpose(0, 1)
