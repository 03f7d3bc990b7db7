"""A run → a folder for other engines: Hugging Face's format or GGUF. The folder is a run as well."""

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch.nn.functional as F
from safetensors.torch import save_file

from framepred.engines.readme import export_readme
from framepred.errors import FramepredError
from framepred.io.atomic import writing_folder
from framepred.io.model_files import copy_model_files
from framepred.io.progress import Progress
from framepred.llm.token_names import TEXT_FILES, TOKENIZER_JSON, read_text_tokenizer, tokenizer_json
from framepred.predictor import gguf as gguf_file
from framepred.predictor.huggingface import to_hugging_face
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.world.footage import rate_of_run
from framepred.world.likelihood import token_logits
from framepred.world.run import Run, load_run, weights_file

Format = Literal["hf", "gguf"]
_TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}


def export(model: str | Path, out: Path, format: str, quantize: str | None = None) -> Run:
    """Write a run as a folder that `transformers` ("hf") or llama.cpp ("gguf") loads; return it, loaded.

    Its tokenizer.json names every id. `quantize` is "f16", "q8_0" or "q4_0", for GGUF. The folder
    appears whole, and is a run: `load_run` takes it, a GGUF's weights as the file holds them.
    """
    if out.exists():
        raise FramepredError(f"{out} exists already: choose another folder")
    with writing_folder(out) as folder:
        write_export(model, folder, out.name, format, quantize)
    return load_run(out)


def write_export(model: str | Path, folder: Path, name: str, format: str, quantize: str | None = None) -> Run:
    """Write a run as `export` does into an empty folder that will have that name; return it, loaded."""
    if format not in get_args(Format):
        raise FramepredError(f"format {format!r} is not known; give one of {', '.join(get_args(Format))}")
    if quantize is not None and (format != "gguf" or quantize not in gguf_file.QUANTIZATIONS):
        allowed = f"one of {', '.join(gguf_file.QUANTIZATIONS)}, with format gguf"
        raise FramepredError(f"quantize {quantize!r} is not allowed with format {format!r}; give {allowed}")
    run = load_run(model)
    vocabulary = run.layout.vocabulary
    names = tokenizer_json(vocabulary, read_text_tokenizer(run.path, vocabulary))
    if format == "gguf":
        gguf_file.require_gguf()
    copy_model_files(run.path / "tokenizer", folder / "tokenizer")
    for file in ("config.json", "framepred.json", "recipe.toml", *TEXT_FILES):
        if (run.path / file).is_file():
            shutil.copyfile(run.path / file, folder / file)
    (folder / "README.md").write_text(export_readme(run, name, format), encoding="utf-8")
    _write_json(folder / TOKENIZER_JSON, names)
    if not (folder / TEXT_FILES[0]).exists():
        _write_json(folder / TEXT_FILES[0], _TOKENIZER_CONFIG)
    weights = to_hugging_face(run.predictor.state_dict(), run.predictor.config)
    if format == "gguf":
        stored = json.loads((folder / "config.json").read_text())
        config = run.predictor.config.to_json() | {k: v for k, v in stored.items() if v is not None}
        gguf_file.write_gguf(folder / gguf_file.NAME, weights, config, names, quantize)
    elif weights_file(run.path).name == gguf_file.NAME:
        save_file(weights, weights_file(folder), {"format": "pt"})
    else:
        shutil.copyfile(weights_file(run.path), weights_file(folder))
    return load_run(folder)


def _write_json(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Loss(Progress):
    """The cross entropy of the same frames under two runs so far: bits a frame, before and after an export."""

    frames: int = 0
    before: float = 0.0
    after: float = 0.0


def measure_loss(before: Run, after: Run, sources: Sequence[str | Path]) -> Iterator[Loss]:
    """Measure what an export cost in bits a frame (cross entropy) on videos, yielding after each video.

    Weights are as each run's file holds them, arithmetic is fp32: an engine that rounds more loses more.
    """
    videos = find_episodes(sources)
    frames, bits = 0, [0.0, 0.0]
    for done, video in enumerate(videos, 1):
        scores = [_bits(run, video) for run in (before, after)]
        frames += scores[0][0]
        bits = [total + score[1] for total, score in zip(bits, scores, strict=True)]
        if not frames and done == len(videos):
            raise FramepredError(f"{video.where} has one frame: nothing to predict; give longer videos")
        yield Loss(done, len(videos), video.name, None, frames, *(b / max(frames, 1) for b in bits))


def _bits(run: Run, video: StoredEpisode) -> tuple[int, float]:
    """Return how many frames of a video are predicted, and the sum of their bits."""
    space = run.layout.actions
    if space is not None:
        video = video.ordered(space.names)
    episode = video.read(run.tokenizer.frame_size, rate_of_run(video, run), with_actions=space is not None)
    tokens = run.tokenizer.encode(episode.frames, episode.actions)
    total = 0.0
    for frame, logits in token_logits(run, tokens, episode.actions):
        wanted = run.layout.steps(tokens)[frame]
        total += float(F.cross_entropy(logits.double(), wanted, reduction="sum")) / math.log(2)
    return len(tokens) - 1, total
