"""The language model inside a run: cut down, taken out, stored, and measured on text."""

import json
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.files import replace_files
from framepred.llm.model import LanguageModel
from framepred.llm.token_names import TOKENIZER_JSON, read_text_files
from framepred.predictor.cpu import linear
from framepred.predictor.huggingface import to_hugging_face
from framepred.predictor.llama import Llama
from framepred.world.run import Run

_ROWS_OF = ("embed.weight", "head.weight")


def save_language_model(llm: LanguageModel, folder: Path) -> LanguageModel:
    """Write a language model as a checkpoint folder, which `load_language_model` reads; return it as that."""
    config = llm.predictor.config
    weights = to_hugging_face({k: v.detach().cpu() for k, v in llm.predictor.state_dict().items()}, config)
    replace_files(folder, dict(llm.files) | {"config.json": json.dumps(config.to_json(), indent=1) + "\n"}, weights, {})
    return replace(llm, path=folder)


def with_first_words(llm: LanguageModel, size: int) -> LanguageModel:
    """Return a language model of the first `size` ids alone: byte-level BPE goes on with the merges that stay.

    Text can still be any; it takes more ids. Raises FramepredError where an id that ends text would be lost.
    """
    config, text = llm.predictor.config, json.loads(llm.files[TOKENIZER_JSON])
    if not 256 < size <= config.vocab_size or (config.end_of_text or 0) >= size:
        raise FramepredError(f"{size} ids of {llm.path} are not allowed: give 257 to {config.vocab_size}")
    known = {word: id for word, id in text["model"]["vocab"].items() if id < size}
    pairs = [(merge, merge.split(" ") if isinstance(merge, str) else merge) for merge in text["model"]["merges"]]
    kept = [merge for merge, (a, b) in pairs if a in known and b in known and a + b in known]
    text["model"] |= {"vocab": known, "merges": kept}
    text["added_tokens"] = [token for token in text["added_tokens"] if token["id"] < size]
    predictor = Llama(replace(config, vocab_size=size))
    weights = llm.predictor.state_dict()
    predictor.load_state_dict({k: v[:size] if k in _ROWS_OF else v for k, v in weights.items()})
    files = dict(llm.files) | {TOKENIZER_JSON: json.dumps(text, ensure_ascii=False)}
    return LanguageModel(llm.path, predictor.eval().requires_grad_(False), files)


def text_part(run: Run) -> LanguageModel:
    """Return the language model inside a run that knows text: its layers, and the rows of text alone."""
    size, config = run.layout.vocabulary.text_size, run.predictor.config
    predictor = Llama(replace(config, vocab_size=size))
    weights = {k: v[:size] if k in _ROWS_OF else v for k, v in run.predictor.state_dict().items()}
    predictor.load_state_dict(weights)
    return LanguageModel(run.path, predictor.eval().requires_grad_(False), read_text_files(run.path))


@torch.inference_mode()
def text_losses(model: Llama, ids: Tensor, size: int, length: int = 128) -> Tensor:
    """Return the cross-entropy, in nats a token, of each stretch of text ids int64 (n,) among the first `size` ids.

    They are read in stretches of `length`, of which the first id is given; a rest at the end is not read. So a
    language model and the runs that began with it are measured alike: float64 (n // length,). Raises FramepredError
    for less than a stretch.
    """
    rows = ids[: len(ids) // length * length].view(-1, length)
    if not len(rows):
        raise FramepredError(f"{len(ids)} tokens of text are too few to be measured on: give at least {length}")
    losses = []
    for row in rows.to(model.embed.weight.device):
        logits = linear(model.hidden(row[None, :-1])[0], model.head.weight, (0, size))
        losses.append(F.cross_entropy(logits.float(), row[1:]))
    return torch.stack(losses).double().cpu()


def text_loss(model: Llama, ids: Tensor, size: int, length: int = 128) -> float:
    """Return the mean of `text_losses`."""
    return float(text_losses(model, ids, size, length).mean())
