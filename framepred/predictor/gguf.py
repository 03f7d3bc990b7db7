"""A Hugging Face Llama checkpoint ⇄ one GGUF file, as llama.cpp reads it; plain or quantized."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import writing

NAME = "model.gguf"
QUANTIZATIONS = ("f16", "q8_0", "q4_0")
_FILE_TYPES = {None: "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
_OUTER = ("model.embed_tokens", "model.norm", "lm_head")
_IN_LAYERS = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm", "post_attention_layernorm",
)  # fmt: skip
# Byte-level BPE first splits text into words, in one of several ways; llama.cpp has a name for each.
_DIGITS = "Digits"
_LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [_BYTES],
    "smollm": [{"type": _DIGITS, "individual_digits": True}, _BYTES],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": _LLAMA_3}, "behavior": "Isolated", "invert": False},
        _BYTES | {"use_regex": False},
    ],
}


def require_gguf() -> ModuleType:
    """Import the gguf package, or raise FramepredError."""
    try:
        import gguf
    except ImportError as error:
        raise FramepredError(f"GGUF needs the gguf package ({error}): pip install 'framepred[export]'") from error
    return gguf


def write_gguf(
    path: Path, weights: dict[str, Tensor], config: dict[str, Any], tokenizer: dict[str, Any],
    quantize: str | None = None,
) -> None:  # fmt: skip
    """Write LlamaForCausalLM's weights, config.json and tokenizer.json as one file, appearing whole.

    `quantize` stores the matrices as "f16", "q8_0" or "q4_0"; norms stay fp32. With q4_0, embeddings and head are
    stored as q8_0: in 4 bits they would cost the most accuracy. None stores everything as fp32.
    """
    gguf = require_gguf()
    with writing(path) as temporary, closing(gguf.GGUFWriter(temporary, "llama")) as writer:
        _add_config(writer, config, gguf.LlamaFileType[_FILE_TYPES[quantize]])
        _add_tokenizer(writer, gguf, config, tokenizer)
        names = _gguf_names(gguf, config["num_hidden_layers"])
        for name, tensor in weights.items():
            array = tensor.detach().float().cpu().numpy()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                heads = config["num_attention_heads" if ".q_proj" in name else "num_key_value_heads"]
                array = _interleave(array, heads)
            kind = _stored_as(gguf, name, array, quantize)
            stored = array if kind == gguf.GGMLQuantizationType.F32 else gguf.quantize(array, kind)
            writer.add_tensor(names[name], np.ascontiguousarray(stored), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def read_gguf(path: Path) -> dict[str, Tensor]:
    """Return the weights of a Llama's GGUF under LlamaForCausalLM's names, dequantized to fp32."""
    gguf = require_gguf()
    with _opened(path) as reader:
        heads = {part: _value(reader, f"llama.attention.{part}") for part in ("head_count", "head_count_kv")}
        names = {theirs: ours for ours, theirs in _gguf_names(gguf, _value(reader, "llama.block_count")).items()}
        result = {}
        for stored in reader.tensors:
            array = gguf.dequantize(stored.data, stored.tensor_type)
            name = names[stored.name]
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                array = _deinterleave(array, heads["head_count" if ".q_proj" in name else "head_count_kv"])
            result[name] = torch.from_numpy(np.array(array, np.float32))
    return result


def read_gguf_config(path: Path) -> dict[str, Any]:
    """Return the configuration that a Llama's GGUF holds, as the content of a config.json."""
    with _opened(path) as reader:
        tensors = {t.name: t for t in reader.tensors}
        scaling = "llama3" if "rope_freqs.weight" in tensors else _value(reader, "llama.rope.scaling.type", "none")
        heads = _value(reader, "llama.attention.head_count")
        return {
            "model_type": "llama",
            "vocab_size": int(tensors["token_embd.weight"].shape[1]),
            "hidden_size": _value(reader, "llama.embedding_length"),
            "intermediate_size": _value(reader, "llama.feed_forward_length"),
            "num_hidden_layers": _value(reader, "llama.block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": _value(reader, "llama.attention.head_count_kv", heads),
            "head_dim": _value(reader, "llama.attention.key_length", None),
            "max_position_embeddings": _value(reader, "llama.context_length"),
            # Stored as fp32, in which 1e-5 reads 9.99999974e-06.
            "rms_norm_eps": float(f"{_value(reader, 'llama.attention.layer_norm_rms_epsilon'):.6g}"),
            "rope_parameters": {
                "rope_type": "default" if scaling == "none" else scaling,
                "rope_theta": _value(reader, "llama.rope.freq_base", 10000.0),
            },
            "tie_word_embeddings": "output.weight" not in tensors,
            "attention_bias": any(name.endswith("attn_q.bias") for name in tensors),
            "mlp_bias": any(name.endswith("ffn_up.bias") for name in tensors),
            "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id", None),
            "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id", None),
        }  # fmt: skip


def read_gguf_tokenizer(path: Path) -> dict[str, Any]:
    """Return a GGUF's text tokenizer as a tokenizer.json; FramepredError where it is no byte-level BPE."""
    kinds = require_gguf().TokenType
    with _opened(path) as reader:
        model, pre = _value(reader, "tokenizer.ggml.model", None), _value(reader, "tokenizer.ggml.pre", "gpt-2")
        if model != "gpt2" or pre not in PRE_TOKENIZERS:
            raise FramepredError(
                f"{path} has a text tokenizer {model!r}, {pre!r}; framepred reads byte-level BPE from a GGUF, "
                f"one of {', '.join(PRE_TOKENIZERS)}: put the model's tokenizer.json beside it"
            )
        names, types = _value(reader, "tokenizer.ggml.tokens"), _value(reader, "tokenizer.ggml.token_type")
        merges = _value(reader, "tokenizer.ggml.merges")
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {
                "id": id, "content": name, "special": type == kinds.CONTROL,
                "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            }
            for id, (name, type) in enumerate(zip(names, types, strict=True))
            if type in (kinds.CONTROL, kinds.USER_DEFINED)
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": pre == "llama-bpe",
            "vocab": {n: id for id, (n, type) in enumerate(zip(names, types, strict=True)) if type != kinds.UNUSED},
            "merges": merges,
        },
    }  # fmt: skip


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a Llama's GGUF; raise FramepredError for a broken file or another architecture."""
    gguf = require_gguf()
    try:
        reader = gguf.GGUFReader(path)
        architecture = _value(reader, "general.architecture")
        if architecture != "llama":
            raise FramepredError(f"{path} holds a {architecture!r}; framepred runs the architecture 'llama'")
        yield reader
    except (ValueError, KeyError, AttributeError, IndexError, OSError) as error:
        raise FramepredError(f"{path} is no whole GGUF of a Llama ({error}): export it again") from error


_NEEDED = object()


def _value(reader: Any, key: str, otherwise: Any = _NEEDED) -> Any:
    field = reader.get_field(key)
    if field is not None:
        return field.contents()
    if otherwise is _NEEDED:
        raise KeyError(key)
    return otherwise


def _gguf_names(gguf: ModuleType, layers: int) -> dict[str, str]:
    """Return GGUF's name of each tensor of a LlamaForCausalLM, by its name there."""
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    ours = (*_OUTER, *(f"model.layers.{i}.{part}" for i in range(layers) for part in _IN_LAYERS))
    return {f"{name}.weight": f"{names.get_name(name)}.weight" for name in ours}


def _interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorder rows from Hugging Face's rotary halves to llama.cpp's rotary pairs."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _deinterleave(weight: np.ndarray, heads: int) -> np.ndarray:
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def _stored_as(gguf: ModuleType, name: str, array: np.ndarray, quantize: str | None) -> Any:
    kinds = gguf.GGMLQuantizationType
    if quantize is None or array.ndim < 2:
        return kinds.F32
    if quantize == "q4_0" and ("embed" in name or "lm_head" in name):
        quantize = "q8_0"
    kind = kinds[quantize.upper()]
    # A quantized block is 32 values of a row; a row that blocks do not fill is stored as f16.
    block = 1 if kind == kinds.F16 else gguf.GGML_QUANT_SIZES[kind][0]
    return kind if array.shape[1] % block == 0 else kinds.F16


def _add_config(writer: Any, config: dict[str, Any], file_type: Any) -> None:
    writer.add_file_type(file_type)
    writer.add_quantization_version(2)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: Any, gguf: ModuleType, config: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    names = {id: name for name, id in tokenizer["model"]["vocab"].items()}
    names |= {id: token["content"] for id, token in added.items()}
    size = config["vocab_size"]
    kinds = gguf.TokenType
    types = [
        (kinds.CONTROL if added[id]["special"] else kinds.USER_DEFINED) if id in added
        else kinds.NORMAL if id in names
        else kinds.UNUSED
        for id in range(size)
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(tokenizer))
    writer.add_token_list([names.get(id, f"<|unused_{id}|>") for id in range(size)])
    writer.add_token_types(types)
    # llama.cpp requires merges: a tokenizer without any gets one of a pair that no text contains.
    merges = tokenizer["model"].get("merges") or [["\x00", "\x00"]]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_add_bos_token(False)
    # A model without an end-of-text id gets one that is never sampled; llama.cpp would take id 11.
    last = max(added)
    writer.add_bos_token_id(_first(config.get("bos_token_id"), last))
    writer.add_eos_token_id(_first(config.get("eos_token_id"), last))


def _first(value: int | list[int] | None, otherwise: int) -> int:
    return otherwise if value is None else value[0] if isinstance(value, list) else value


def _pre_tokenizer(tokenizer: dict[str, Any]) -> str:
    """Return llama.cpp's name for how a tokenizer.json splits text into words."""
    described = str(tokenizer["pre_tokenizer"])
    if tokenizer["model"]["type"] == "WordLevel":
        return "default"
    if "ByteLevel" not in described:
        raise FramepredError("the run's text tokenizer is not byte-level BPE, which a GGUF needs: give --format hf")
    return "smollm" if _DIGITS in described else "llama-bpe" if _LLAMA_3[:30] in described else "gpt-2"
