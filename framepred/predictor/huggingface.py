"""The weights of a Llama under the names and shapes of Hugging Face's LlamaForCausalLM, and back."""

import torch
from torch import Tensor

from framepred.predictor.config import LlamaConfig

_LAYER = {
    "attention.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
    "attention_norm": ("input_layernorm",),
    "mlp_norm": ("post_attention_layernorm",),
}
"""framepred's names in a layer → Hugging Face's, whose weights stand below each other in framepred's."""


def to_hugging_face(weights: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Return framepred's weights under the names and shapes of LlamaForCausalLM."""
    result = {"model.embed_tokens.weight": weights["embed.weight"], "model.norm.weight": weights["norm.weight"]}
    if not config.tie_word_embeddings:
        result["lm_head.weight"] = weights["head.weight"]
    query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    for i in range(config.num_hidden_layers):
        for name, parts in _LAYER.items():
            weight = weights[f"layers.{i}.{name}.weight"]
            split = weight.split((query, key, key)) if len(parts) == 3 else weight.chunk(len(parts))
            result |= {f"model.layers.{i}.{part}.weight": w for part, w in zip(parts, split, strict=True)}
    return {name: tensor.contiguous() for name, tensor in result.items()}


def from_hugging_face(weights: dict[str, Tensor], config: LlamaConfig) -> dict[str, Tensor]:
    """Return LlamaForCausalLM's weights under framepred's names: the inverse of `to_hugging_face`."""
    result = {"embed.weight": weights["model.embed_tokens.weight"], "norm.weight": weights["model.norm.weight"]}
    result["head.weight"] = weights["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"]
    for i in range(config.num_hidden_layers):
        for name, parts in _LAYER.items():
            joined = [weights[f"model.layers.{i}.{part}.weight"] for part in parts]
            result[f"layers.{i}.{name}.weight"] = torch.cat(joined)
    return result
