"""A language model's Llama checkpoint → a run's predictor: its ids stay, frames and actions get ids after them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.io.files import read_json, read_weights
from framepred.llm.token_names import TOKENIZER_JSON, read_text_files, tokenizer_json
from framepred.predictor import gguf as gguf_file
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.world.run import make_predictor

_INDEX = "model.safetensors.index.json"
# The number of rows is a multiple of this: fast on GPUs, and whole blocks in quantized formats.
_ROWS = 64
# Noise of new rows, relative to the standard deviation of text rows: they differ, and none stands out.
_SPREAD = 0.3


@dataclass(frozen=True)
class LanguageModel:
    """A Llama of text in fp32, and the contents of its tokenizer's files by file name."""

    path: Path
    predictor: Llama
    files: dict[str, str]

    @property
    def text_size(self) -> int:
        """Ids of text: all rows of its embedding."""
        return self.predictor.config.vocab_size


def find_checkpoint(name_or_path: str | Path) -> tuple[Path, bool]:
    """Return the run or language model that a name, path or hf:// address means, and whether it is the latter.

    A language model is a GGUF file, or a folder with a config.json and no framepred.json.
    """
    path = Path(name_or_path)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise FramepredError(f"{path} does not exist: give a GGUF file, a checkpoint folder or a run")
        return path, True
    folder = zoo.resolve("models", name_or_path)
    return folder, not (folder / "framepred.json").exists()


def load_language_model(path: Path, layers: int = 0) -> LanguageModel:
    """Load a Llama's GGUF file, or a checkpoint folder: config.json and safetensors, or a GGUF inside.

    Its first `layers` are kept, 0 is all. Raises FramepredError for what is no Llama, has a rope or biases that
    framepred's lacks, or no tokenizer.json (a GGUF's own is read from it). Nothing in the folder is executed.
    """
    config, weights, file = _read_file(path) if path.is_file() else _read_folder(path)
    if layers > config.get("num_hidden_layers", layers):
        raise FramepredError(
            f"llm.layers = {layers} is not allowed: {path} has {config['num_hidden_layers']}; give fewer, or 0 for all"
        )
    if layers:
        config = config | {"num_hidden_layers": layers}
    try:
        predictor = make_predictor(config, weights, file)
    except FramepredError as error:
        raise FramepredError(f"--init-from {path}: {error}") from error
    files = read_text_files(file.parent)
    if TOKENIZER_JSON not in files and file.suffix == ".gguf":
        files[TOKENIZER_JSON] = json.dumps(gguf_file.read_gguf_tokenizer(file), ensure_ascii=False)
    if TOKENIZER_JSON not in files:
        raise FramepredError(f"{path} has no {TOKENIZER_JSON}: put that of the model there, its text needs it")
    return LanguageModel(path, predictor, files)


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    return gguf_file.read_gguf_config(path), gguf_file.read_gguf(path), path


def _read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    single, index = folder / "model.safetensors", folder / _INDEX
    if single.is_file():
        return read_json(folder / "config.json", "Llama checkpoint"), read_weights(single)[0], single
    if index.is_file():
        names = sorted(set(read_json(index, "Llama checkpoint").get("weight_map", {}).values()))
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            raise FramepredError(f"{index} names no files of its folder: restore it")
        weights: dict[str, Tensor] = {}
        for name in names:
            weights |= read_weights(folder / name)[0]
        return read_json(folder / "config.json", "Llama checkpoint"), weights, index
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return _read_file(found[0])
    what = f"{len(found)} GGUF files, give one of them" if found else "no safetensors and no GGUF, nothing else is read"
    raise FramepredError(f"--init-from {folder} is neither a run nor a Llama checkpoint: it holds {what}")


def check_names(llm: LanguageModel, vocabulary: Vocabulary) -> None:
    """Raise FramepredError where the text tokenizer has ids beyond its rows, or names that framepred uses."""
    try:
        tokenizer_json(vocabulary, json.loads(llm.files[TOKENIZER_JSON]))
    except (ValueError, KeyError, TypeError) as error:
        raise FramepredError(f"{llm.path}: {TOKENIZER_JSON} cannot be read ({error!r}): restore it") from error


def extend(llm: LanguageModel, layout: SequenceLayout, context: int, generator: torch.Generator) -> Llama:
    """Return the language model with more rows, for the layout's ids that are not text.

    Each new row is the mean of the text rows, and a part of their spread as noise. `context` is how many ids
    the run reads at once.
    """
    config = llm.predictor.config
    if context > config.max_position_embeddings:
        raise FramepredError(
            f"{context} ids, which predictor.window frames of {layout.stride} take, are more than the context of "
            f"{llm.path} ({config.max_position_embeddings}): give a smaller predictor.window"
        )
    size = -(-layout.vocabulary.size // _ROWS) * _ROWS
    model = Llama(replace(config, vocab_size=size))
    weights = llm.predictor.state_dict()
    weights["embed.weight"] = with_new_rows(weights["embed.weight"], size, generator)
    weights["head.weight"] = (
        weights["embed.weight"]
        if config.tie_word_embeddings
        else with_new_rows(weights["head.weight"], size, generator)
    )
    model.load_state_dict(weights)
    return model


def with_new_rows(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return rows (n, D) with more after them, up to `size`: their mean, and a part of their spread as noise."""
    noise = torch.randn(size - len(rows), rows.shape[1], generator=generator)
    return torch.cat([rows, rows.mean(0) + _SPREAD * rows.std(0) * noise])
