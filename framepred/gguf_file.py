"""A Hugging Face Llama checkpoint ⇄ one GGUF file, as llama.cpp reads it; plain or quantized."""

import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError

NAME = "model.gguf"
QUANTIZATIONS = ("f16", "q8_0", "q4_0")
_FILE_TYPES = {None: "ALL_F32", "f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0", "q4_0": "MOSTLY_Q4_0"}
_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_BACK = {theirs: ours for ours, theirs in _TENSORS.items()}
# Byte-level BPE differs in how it cuts text before merging; llama.cpp knows the ways by name.
_DIGITS, _LLAMA_3 = "Digits", "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"


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

    `quantize` stores the matrices as "f16", "q8_0" or "q4_0" (embeddings and head then as q8_0, which
    cost most when coarse); norms stay fp32, and so does all of it with None.
    """
    gguf = require_gguf()
    partial = path.with_name(f".{path.name}.partial")
    writer = gguf.GGUFWriter(partial, "llama")
    try:
        _add_config(writer, config, gguf.LlamaFileType[_FILE_TYPES[quantize]])
        _add_tokenizer(writer, gguf, config, tokenizer)
        for name, tensor in weights.items():
            array = tensor.detach().float().cpu().numpy()
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                heads = config["num_attention_heads" if ".q_proj" in name else "num_key_value_heads"]
                array = _interleave(array, heads)
            kind = _stored_as(gguf, name, array, quantize)
            stored = array if kind == gguf.GGMLQuantizationType.F32 else gguf.quantize(array, kind)
            writer.add_tensor(_gguf_name(name), np.ascontiguousarray(stored), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_gguf(path: Path) -> dict[str, Tensor]:
    """Return the weights of a Llama's GGUF under LlamaForCausalLM's names, dequantized to fp32."""
    gguf = require_gguf()
    try:
        reader = gguf.GGUFReader(path)
        architecture = reader.get_field("general.architecture").contents()
        if architecture != "llama":
            raise FramepredError(f"{path} holds a {architecture!r}; framepred runs the architecture 'llama'")
        heads = {
            part: reader.get_field(f"llama.attention.{part}").contents() for part in ("head_count", "head_count_kv")
        }
        result = {}
        for stored in reader.tensors:
            array = gguf.dequantize(stored.data, stored.tensor_type)
            name = _hugging_face_name(stored.name)
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                array = _deinterleave(array, heads["head_count" if ".q_proj" in name else "head_count_kv"])
            result[name] = torch.from_numpy(np.array(array, np.float32))
    except (ValueError, KeyError, AttributeError, IndexError, OSError) as error:
        raise FramepredError(f"{path} is no whole GGUF of a Llama ({error}): export it again") from error
    return result


def _gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if not stem.startswith("model.layers."):
        return f"{_TENSORS[stem]}.weight"
    layer, part = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{layer}.{_TENSORS[part]}.weight"


def _hugging_face_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if not stem.startswith("blk."):
        return f"{_BACK[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{_BACK[part]}.weight"


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
    # A quantized block is 32 values of a row; a row of another length stays as fine as it can.
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
    writer.add_tokenizer_pre(_cuts_text(tokenizer))
    writer.add_token_list([names.get(id, f"<|unused_{id}|>") for id in range(size)])
    writer.add_token_types(types)
    # llama.cpp wants merges, and takes none for an answer only from a pair that cannot occur.
    merges = tokenizer["model"].get("merges") or [["\x00", "\x00"]]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    writer.add_add_bos_token(False)
    # Where nothing ends a text, an id that is never sampled does: llama.cpp would take id 11.
    last = max(added)
    writer.add_bos_token_id(_first(config.get("bos_token_id"), last))
    writer.add_eos_token_id(_first(config.get("eos_token_id"), last))


def _first(value: int | list[int] | None, otherwise: int) -> int:
    return otherwise if value is None else value[0] if isinstance(value, list) else value


def _cuts_text(tokenizer: dict[str, Any]) -> str:
    described = str(tokenizer["pre_tokenizer"])
    if tokenizer["model"]["type"] == "WordLevel":
        return "default"
    if "ByteLevel" not in described:
        raise FramepredError("the run's text tokenizer is no byte-level BPE, which --format gguf can write; use hf")
    return "smollm" if _DIGITS in described else "llama-bpe" if _LLAMA_3[:30] in described else "gpt-2"
