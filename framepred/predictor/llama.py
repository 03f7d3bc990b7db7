"""The predictor: a Llama transformer. It sees ids, never pixels."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.predictor.attention import attend
from framepred.predictor.config import LlamaConfig
from framepred.predictor.cpu import Steps, lean_steps
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.linear import Linear, linear, pays, plain_inference


class Attention(nn.Module):
    """`attend`, with its products; query, key and value are one."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        heads = config.num_attention_heads
        self.qkv = Linear(config.hidden_size, (heads + 2 * self.kv_heads) * self.head_dim)
        self.out = Linear(heads * self.head_dim, config.hidden_size)

    def forward(
        self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor | None, cache: KVCache | None, layer: int
    ) -> Tensor:
        qkv = self.qkv(x).view(*x.shape[:2], -1, self.head_dim)
        return self.out(attend(qkv, self.kv_heads, rope, mask, cache, layer))


class Layer(nn.Module):
    """Pre-norm attention and SwiGLU; gate and up are one product."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.attention_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention = Attention(config)
        self.mlp_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
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
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
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
            before, end = cache.length, cache.place(length, at, rows)
            mask = cache.visible(length, self.config.num_attention_heads // self.config.num_key_value_heads)
        if end > len(self.cos):
            raise FramepredError(f"{end} tokens are more than the model's context of {len(self.cos)}")
        positions = torch.arange(length, device=ids.device) + (before if at is None else at[:, None])
        rope = self.cos[positions], self.sin[positions]
        x = self.embed(ids)
        layers, norm = self._steps(x, cache)
        for i, layer in enumerate(layers):
            x = layer(x, rope, mask, cache, i)
        if cache is not None and at is None:
            cache.length = end
        return norm(x)

    def _steps(self, x: Tensor, cache: KVCache | None) -> Steps:
        """Return the layers and the last norm: lean ones where x (B, L, D) and the weights allow it."""
        if not (plain_inference(x) and pays(x.shape[0] * x.shape[1])):
            return self.layers, self.norm
        if cache is None:
            return lean_steps(self.layers, self.norm)
        if cache.steps is None:
            cache.steps = lean_steps(self.layers, self.norm)
        return cache.steps

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
