"""The shape of a Llama, as Hugging Face's `config.json` says it."""

from dataclasses import asdict, dataclass
from typing import Any

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
