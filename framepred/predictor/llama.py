"""The predictor: a Llama transformer. It sees ids, never pixels."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.predictor.attention import attend
from framepred.predictor.config import LlamaConfig
from framepred.predictor.cpu import fast_layers, linear
from framepred.predictor.kv_cache import KVCache


class Attention(nn.Module):
    """Grouped-query attention (`attend`); query, key and value are one product."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, (heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(heads * self.head_dim, config.hidden_size, bias=False)

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
        self.gate_up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

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
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.head.weight = self.embed.weight
        frequency = config.rope_theta ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
        angles = torch.arange(config.max_position_embeddings).float()[:, None] * frequency
        cos, sin = angles.cos(), angles.sin()
        self.register_buffer("cos", torch.cat((cos, cos), -1)[:, None], persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), -1)[:, None], persistent=False)
        self.cos: Tensor
        self.sin: Tensor

    def initialise(self, generator: torch.Generator) -> None:
        """Initialise the weights: normal(0, 0.02), those of residual outputs scaled down by depth; norms are 1."""
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
        """Ids int64 (B, L) → final hidden states (B, L, D); a cache is read, and the ids' keys and values are added.

        With `at` (B,), each row's ids begin at its own position, and the cache's length stays as it is; the cache
        must be filled up to there. `rows` (B,) are the cache's rows that the ids belong to, if not all.
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
        layers, norm = fast_layers(self.layers, self.norm, x, cache)
        for i, layer in enumerate(layers):
            x = layer(x, rope, mask, cache, i)
        if cache is not None and at is None:
            cache.length = end
        return norm(x)

    def forward(
        self, ids: Tensor, wanted: Sequence[tuple[Tensor, tuple[int, int], Tensor]] | None = None
    ) -> Tensor | list[Tensor]:
        """Ids int64 (B, L) → logits (B, L, V).

        With `wanted`, a list of (places, (first, stop), targets), the cross-entropy losses float32 (P,) of each item
        instead: places int64 (P,) index the flattened B · L hidden states, the logits are those of the ids from first
        to before stop, and targets int64 (P,) count from first. All other logits, most of a language model's, are not
        computed, and torch.compile can fuse the loss.
        """
        hidden = self.hidden(ids)
        if wanted is None:
            return self.head(hidden)
        hidden = hidden.flatten(0, 1)
        return [
            F.cross_entropy(linear(hidden[places], self.head.weight, ids).float(), targets, reduction="none")
            for places, ids, targets in wanted
        ]
