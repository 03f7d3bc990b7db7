"""A tiny random Llama that knows text, as transformers saves it, made in no time."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from framepred.io import compat
from framepred.predictor import gguf as gguf_file

compat.ensure_torchvision()
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXT = 300


def byte_tokenizer(size: int = TEXT, cut: str = "smollm", extra: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a byte-level BPE's tokenizer.json of at most `size` tokens, with a few merges and one special token."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [["Ġ", "t"], ["h", "e"], ["Ġt", "he"]]
    names = ["<|end|>", *alphabet, *("".join(m) for m in merges), *extra]
    assert len(names) <= size
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "post_processor": None,
        "added_tokens": [
            {
                "id": 0, "content": "<|end|>", "special": True,
                "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            }
        ],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": gguf_file.PRE_TOKENIZERS[cut]},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {name: id for id, name in enumerate(names)}, "merges": merges,
        },
    }  # fmt: skip


def write_llama(folder: Path, **changes: Any) -> Path:
    """Write a tiny random Llama as transformers saves it, with a text tokenizer."""
    shape = {
        "vocab_size": TEXT, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0}, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape | changes))
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 1.0 if parameter.ndim == 1 else 0.0, 0.2)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(byte_tokenizer()), encoding="utf-8")
    return folder
