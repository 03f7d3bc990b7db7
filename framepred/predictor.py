"""The predictor: a Llama transformer. It sees ids, never pixels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.kv_cache import KVCache
from framepred.linear import Linear, linear, plain_inference
from framepred.llama_config import LlamaConfig


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm` in half as many steps where no gradients are needed: few rows wait for steps, not for numbers."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps)
        # Tensors, which a number would be made into in every call.
        self.floor, self.scale = torch.tensor(math.sqrt(width * eps)), torch.tensor(width**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        if not plain_inference(x):
            return super().forward(x)
        size = torch.linalg.vector_norm(x, dim=-1, keepdim=True).hypot_(self.floor).mul_(self.scale)
        return torch.mul(x, self.weight).div_(size)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; query, key and value are one product."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.qkv = Linear(config.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim)
        self.out = Linear(self.heads * self.head_dim, config.hidden_size)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).view(batch, length, -1, self.head_dim)
        rotated = _rotate(qkv[:, :, : self.heads + self.kv_heads], rope)
        q, k = rotated.split((self.heads, self.kv_heads), 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), qkv[:, :, self.heads + self.kv_heads :].transpose(1, 2)
        if cache is not None:
            k, v = cache.write(layer, k, v)
        if cache is not None and cache.prefix.shape[4]:
            prefix_k, prefix_v = cache.prefix[layer, :, 0]
            y = _attend_to_both(q, prefix_k, prefix_v, k, v, mask)
        elif cache is None and q.dtype == torch.bfloat16 and q.device.type == "cpu":
            y = _attend_in_blocks(q, k, v)
        else:
            y = F.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, is_causal=mask is None and length > 1, enable_gqa=self.heads != self.kv_heads
            )
        return self.out(y.transpose(1, 2).reshape(batch, length, -1))


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


_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
"""What `scaled_dot_product_attention` is on CPUs → (y, the logarithm of each query's sum of weights)."""


def _attend_to_both(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from q (B, H, L, d) to a prefix (K, P, d) that all rows share and to each row's own (B, K, T, d).

    All rows' queries meet the prefix in one product, which reads it once, not once a row.
    """
    batch, heads, length, dim = q.shape
    kv_heads, prefix = prefix_k.shape[:2]
    q = q.reshape(batch, kv_heads, -1, dim)
    folded = rearrange(q, "b k l d -> k (b l) d")
    if mask is not None:
        mask = mask.repeat(1, 1, heads // kv_heads, 1)
    if plain_inference(q):
        # Each part by itself, in one step; how much of all each had to tell weighs them.
        read, told = _FUSED(folded[None], prefix_k[None], prefix_v[None])
        y, own_told = _FUSED(q, k, v, attn_mask=mask)
        read, told = (rearrange(x[0], "k (b l) ... -> b k l ...", b=batch) for x in (read, told))
        return y.lerp(read, torch.sigmoid(told - own_told)[..., None]).reshape(batch, heads, length, dim)
    scale = dim**-0.5
    shared = rearrange(folded * scale @ prefix_k.mT, "k (b l) p -> b k l p", b=batch)
    own = q * scale @ k.mT
    weights = torch.cat([shared, own if mask is None else own + mask], -1).softmax(-1)
    read = rearrange(weights[..., :prefix], "b k l p -> k (b l) p") @ prefix_v
    y = rearrange(read, "k (b l) d -> b k l d", b=batch) + weights[..., prefix:] @ v
    return y.reshape(batch, heads, length, dim)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rope[0].to(x.dtype), rope[1].to(x.dtype)
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    return torch.addcmul(x * cos, swapped, sin)


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU; gate and up are one product."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.gate_up = Linear(config.hidden_size, 2 * config.intermediate_size)
        self.down = Linear(config.intermediate_size, config.hidden_size)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope, mask, cache, layer)
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Llama(nn.Module):
    """The Llama decoder: ids (B, L) → hidden states (B, L, D) → logits over the vocabulary."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = Linear(config.hidden_size, config.vocab_size)
        if config.tie_word_embeddings:
            self.head.weight = self.embed.weight
        self._positions(config.max_position_embeddings)

    def _positions(self, length: int) -> None:
        dim = self.config.head_dim
        frequency = self.config.rope_theta ** (-torch.arange(0, dim, 2).float() / dim)
        angles = torch.arange(length).float()[:, None] * frequency
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat((cos, cos), -1)[:, None], persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), -1)[:, None], persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def initialise(self, generator: torch.Generator) -> None:
        """Fill the weights: normal(0, 0.02), residual outputs scaled down by depth."""
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                nn.init.ones_(parameter)
                continue
            residual = name.endswith(("out.weight", "down.weight"))
            std = 0.02 / math.sqrt(2 * self.config.num_hidden_layers) if residual else 0.02
            nn.init.normal_(parameter, std=std, generator=generator)

    def hidden(
        self, ids: Tensor, cache: KVCache | None = None, at: Tensor | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Ids int64 (B, L) → final hidden states (B, L, D); a cache is read, and written in place.

        With `at` (B,), each row's ids stand at its own position, up to which its cache must be filled; the
        cache's length stays. They may be of some of the cache's `rows` (B,) alone.
        """
        length, before, end, mask = ids.shape[1], 0, ids.shape[1], None
        if cache is not None:
            before, end, mask = cache.length, cache.place(length, at, rows), cache.visible(length)
        if end > len(self.cos):
            raise FramepredError(f"{end} tokens are more than the model's context of {len(self.cos)}")
        positions = torch.arange(length, device=ids.device) + (before if at is None else at[:, None])
        rope = self.cos[positions], self.sin[positions]
        x = self.embed(ids)
        for i, layer in enumerate(self.layers):
            x = layer(x, rope, mask, cache, i)
        if cache is not None and at is None:
            cache.length = end
        return self.norm(x)

    def forward(
        self, ids: Tensor, wanted: Sequence[tuple[Tensor, tuple[int, int], Tensor]] | None = None
    ) -> Tensor | list[Tensor]:
        """Ids int64 (B, L) → logits (B, L, V).

        Or, for each of `wanted` (places, (first, stop), ids), losses float32 (P,): cross-entropy at places int64 (P,),
        counted through all rows, of ids int64 (P,) among those of a range, counted from its first. Other logits, most
        of a language model's, are not computed; and torch.compile makes the loss in as many steps as it needs.
        """
        hidden = self.hidden(ids)
        if wanted is None:
            return self.head(hidden)
        hidden = hidden.flatten(0, 1)
        return [
            F.cross_entropy(linear(hidden[places], self.head.weight, legal).float(), right, reduction="none")
            for places, legal, right in wanted
        ]


def to_hugging_face(weights: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Return framepred's weights under the names and shapes of LlamaForCausalLM."""
    result = {"model.embed_tokens.weight": weights["embed.weight"], "model.norm.weight": weights["norm.weight"]}
    if not config.tie_word_embeddings:
        result["lm_head.weight"] = weights["head.weight"]
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        q, k, v = weights[ours + "attention.qkv.weight"].split((query, key, key))
        gate, up = weights[ours + "gate_up.weight"].chunk(2)
        for name, tensor in (
            ("self_attn.q_proj", q),
            ("self_attn.k_proj", k),
            ("self_attn.v_proj", v),
            ("self_attn.o_proj", weights[ours + "attention.out.weight"]),
            ("mlp.gate_proj", gate),
            ("mlp.up_proj", up),
            ("mlp.down_proj", weights[ours + "down.weight"]),
            ("input_layernorm", weights[ours + "attention_norm.weight"]),
            ("post_attention_layernorm", weights[ours + "mlp_norm.weight"]),
        ):
            result[f"{theirs}{name}.weight"] = tensor
    return {name: tensor.contiguous() for name, tensor in result.items()}


def from_hugging_face(weights: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Return LlamaForCausalLM's weights under framepred's names: the inverse of `to_hugging_face`."""
    result = {"embed.weight": weights["model.embed_tokens.weight"], "norm.weight": weights["model.norm.weight"]}
    result["head.weight"] = weights["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    for i in range(config.num_hidden_layers):
        ours, theirs = f"layers.{i}.", f"model.layers.{i}."
        joined = {
            "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "attention.out": ("self_attn.o_proj",),
            "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
            "down": ("mlp.down_proj",),
            "attention_norm": ("input_layernorm",),
            "mlp_norm": ("post_attention_layernorm",),
        }
        for name, parts in joined.items():
            result[f"{ours}{name}.weight"] = torch.cat([weights[f"{theirs}{part}.weight"] for part in parts])
    return result
