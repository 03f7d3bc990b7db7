"""The predictor: a Llama transformer and its KV cache. It sees ids, never pixels."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framepred.errors import FramepredError


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of a Llama; names are those of the Hugging Face configuration.

    `head_dim` 0 is hidden_size / num_attention_heads. `bos_token_id` and `eos_token_id` are those of its text.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    max_position_embeddings: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    tie_word_embeddings: bool = True
    head_dim: int = 0
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None

    def __post_init__(self) -> None:
        if not self.head_dim:
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)

    @property
    def end_of_text(self) -> int | None:
        """The id that ends a text, the first where several do."""
        ends = self.eos_token_id
        return ends[0] if isinstance(ends, list) else ends

    def to_json(self) -> dict[str, Any]:
        """Return the content of a `config.json` that `transformers` loads as LlamaForCausalLM."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            **asdict(self),
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
            "pad_token_id": None,
            "dtype": "float32",
            "use_cache": True,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "LlamaConfig":
        if value.get("model_type") != "llama":
            raise FramepredError(
                f"model_type {value.get('model_type')!r} is not a Llama; framepred runs model_type 'llama'"
            )
        rope = value.get("rope_parameters") or value.get("rope_scaling") or {}
        for name, found, wanted in (
            ("rope scaling", rope.get("rope_type", rope.get("type", "default")), "default"),
            ("hidden_act", value.get("hidden_act", "silu"), "silu"),
            ("attention_bias", value.get("attention_bias", False), False),
            ("mlp_bias", value.get("mlp_bias", False), False),
        ):
            if found != wanted:
                raise FramepredError(f"{name} {found!r} is not supported; framepred runs Llamas with {wanted!r}")
        # What a config.json leaves out is as in Hugging Face's LlamaConfig, where it is not as here.
        known: dict[str, Any] = {
            "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        }  # fmt: skip
        known |= {name: value[name] for name in LlamaConfig.__dataclass_fields__ if value.get(name) is not None}
        known.setdefault("num_key_value_heads", known.get("num_attention_heads"))
        known["rope_theta"] = rope.get("rope_theta", known.get("rope_theta", 10000.0))
        return LlamaConfig(**known)


class KVCache:
    """Keys and values of every layer, preallocated: (layers, 2, B, kv heads, capacity, head dim).

    `length` positions are filled. Once `share` was called, the first of them are one `prefix` that
    all rows read, (layers, 2, 1, kv heads, P, head dim), and `data` holds what follows it.
    """

    def __init__(self, config: LlamaConfig, batch: int, capacity: int, like: Tensor) -> None:
        shape = (config.num_hidden_layers, 2, batch, config.num_key_value_heads, capacity, config.head_dim)
        self.data = like.new_zeros(shape)
        self.prefix = self.data[:, :, :1, :, :0]
        self.length = 0
        self._slots: Tensor | None = None
        self._rows: Tensor | None = None
        self._end = 0

    @property
    def capacity(self) -> int:
        return self.prefix.shape[4] + self.data.shape[4]

    @property
    def own(self) -> int:
        """Positions filled behind the prefix."""
        return self.length - self.prefix.shape[4]

    def share(self, batch: int) -> None:
        """Let `batch` rows go on from what row 0 holds: one prefill serves all samples, stored and read once."""
        self.prefix = self.data[:, :, :1, :, : self.length].clone()
        layers, two, _, heads, capacity, dim = self.data.shape
        self.data = self.data.new_zeros(layers, two, batch, heads, capacity - self.length, dim)

    def place(self, length: int, at: Tensor | None = None, rows: Tensor | None = None) -> int:
        """Say where the next `length` positions are written, and return where the last ends.

        That is behind what is there, or from each one's `at` (R,) in these `rows` (R,) alone.
        """
        if at is None:
            self._slots, self._end = None, self.own + length
        else:
            own = at - self.prefix.shape[4]
            self._slots = (own[:, None] + torch.arange(length, device=at.device))[:, None]
            self._end = int(own.max()) + length
        self._rows = rows
        return self.prefix.shape[4] + self._end

    def write(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values (R, kv heads, L, head dim) at their place; return their rows' own up to the last."""
        store, end = self.data[layer], self._end
        if self._slots is None:
            store[0, :, :, end - k.shape[2] : end] = k
            store[1, :, :, end - k.shape[2] : end] = v
            return store[0, :, :, :end], store[1, :, :, :end]
        rows = torch.arange(len(k), device=k.device) if self._rows is None else self._rows
        place = rows[:, None, None], torch.arange(k.shape[1], device=k.device)[:, None], self._slots
        store[0][place], store[1][place] = k, v
        # All rows are read where they lie; some are copied, which pays where others need no more work.
        own = store[:, :, :, :end] if self._rows is None else store[:, rows, :, :end]
        return own[0], own[1]

    def visible(self, length: int) -> Tensor | None:
        """Which of the rows' own positions each of the placed ones may see, (1 or B, 1, L, T); None for all."""
        if self._slots is not None:
            return torch.arange(self._end, device=self.data.device) <= self._slots[..., None]
        if length == 1 or not self.length:
            return None
        seen = torch.ones(1, 1, length, self._end, dtype=torch.bool, device=self.data.device)
        return seen.tril_(self._end - length)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions; query, key and value are one product."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = (
            config.num_attention_heads,
            config.num_key_value_heads,
            config.head_dim,
        )
        self.qkv = nn.Linear(config.hidden_size, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = nn.Linear(self.heads * self.head_dim, config.hidden_size, bias=False)

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


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, size: int = 256) -> Tensor:
    """Causal attention of q (B, H, L, d) to k, v (B, K, L, d), each block of queries to no key after it.

    On CPUs torch's fused bf16 attention takes twice as long, forward and backward (scripts/bench_train).
    """
    length, dim = q.shape[2:]
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    q = q * dim**-0.5
    parts = []
    for start in range(0, length, size):
        end = min(start + size, length)
        later = torch.ones(end - start, end, dtype=torch.bool, device=q.device).triu_(start + 1)
        scores = q[:, :, start:end] @ k[:, :, :end].mT
        parts.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ v[:, :, :end])
    return torch.cat(parts, 2)


def _attend_to_both(q: Tensor, prefix_k: Tensor, prefix_v: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Attend from q (B, H, L, d) to a prefix (K, P, d) that all rows share and to each row's own (B, K, T, d).

    All rows' queries meet the prefix in one product, which reads it once, not once a row.
    """
    batch, heads, length, dim = q.shape
    kv_heads, prefix = prefix_k.shape[:2]
    q = q.reshape(batch, kv_heads, -1, dim) * dim**-0.5
    folded = rearrange(q, "b k l d -> k (b l) d")
    shared = rearrange(folded @ prefix_k.mT, "k (b l) p -> b k l p", b=batch)
    own = q @ k.mT
    if mask is not None:
        own = own.masked_fill(~mask.repeat(1, 1, heads // kv_heads, 1), -torch.inf)
    weights = torch.cat([shared, own], -1).softmax(-1)
    read = rearrange(weights[..., :prefix], "b k l p -> k (b l) p") @ prefix_v
    y = rearrange(read, "k (b l) d -> b k l d", b=batch) + weights[..., prefix:] @ v
    return y.reshape(batch, heads, length, dim)


def _rotate(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = rope[0].to(x.dtype), rope[1].to(x.dtype)
    half = x.shape[-1] // 2
    swapped = torch.cat((x[..., half:], x[..., :half]), -1)
    return x * cos + swapped * sin


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

    def forward(self, ids: Tensor, positions: Tensor | None = None) -> Tensor:
        """Ids int64 (B, L) → logits (B, L, V), or (B, P, V) at the `positions` (P,) asked for."""
        hidden = self.hidden(ids)
        return self.head(hidden if positions is None else hidden[:, positions])


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
