"""Folders ⇄ tokenizers: safetensors only, every hash verified."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from framepred.config.action_names import ActionNames, values_of
from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.io.atomic import writing_folder
from framepred.io.files import file_sha256, load_into, read_json, read_weights, replace_files
from framepred.io.model_files import copy_model_files
from framepred.tokenizer.foreign import AdaptedTokenizer, is_foreign, load_adapted
from framepred.tokenizer.image import Autoencoder
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape

_ADAPTER = "adapter.json"

OwnTokenizer = Autoencoder | TemporalAutoencoder
KINDS: dict[str, type[OwnTokenizer]] = {
    "framepred-autoencoder": Autoencoder,
    "framepred-temporal": TemporalAutoencoder,
}
"""framepred's own tokenizers, which it trains, by the `kind` in their config.json."""


def tokenizer_sha256(folder: Path) -> str:
    """Return the sha256 of a tokenizer: of its model.safetensors, which holds its configuration too.

    Another library's keeps its configuration apart: there it is that of the hashes of all its files.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FramepredError(
            f"{folder} is no tokenizer (no model.safetensors): give a folder that framepred train wrote"
        )
    if not _is_foreign(folder):
        return file_sha256(folder / "model.safetensors")
    lines = "".join(f"{file.name} {file_sha256(file)}\n" for file in [folder / "config.json", *files])
    return hashlib.sha256(lines.encode()).hexdigest()


def _is_foreign(folder: Path) -> bool:
    try:
        return is_foreign(json.loads((folder / "config.json").read_text()))
    except (OSError, ValueError, TypeError):
        return False


def save_tokenizer(folder: Path, tokenizer: OwnTokenizer, recipe_toml: str, dtype: torch.dtype = torch.float32) -> str:
    """Write a tokenizer folder; return its sha256."""
    recipe = asdict(tokenizer.shape if isinstance(tokenizer, TemporalAutoencoder) else tokenizer.recipe)
    config: dict[str, Any] = {
        "kind": next(kind for kind, made in KINDS.items() if isinstance(tokenizer, made)),
        "frame_size": list(tokenizer.frame_size),
        "grid": list(tokenizer.grid),
        "codebook_size": tokenizer.codebook_size,
        "recipe": {k: list(v) if isinstance(v, tuple) else v for k, v in recipe.items()},
    }
    if isinstance(tokenizer, TemporalAutoencoder) and (values := values_of(tokenizer.shape.action_names)):
        config["recipe"]["action_values"] = list(values)
    text = json.dumps(config, indent=1) + "\n"
    weights = {
        k: v.detach().cpu().to(dtype if v.is_floating_point() else v.dtype).contiguous()
        for k, v in tokenizer.state_dict().items()
    }
    replace_files(
        folder,
        {"config.json": text, "recipe.toml": recipe_toml},
        weights,
        {"config": json.dumps(config, sort_keys=True)},
    )
    return tokenizer_sha256(folder)


def load_tokenizer(
    name_or_dir: str | Path = zoo.DEFAULT, size: tuple[int, int] | None = None, device: str = "cpu"
) -> OwnTokenizer | AdaptedTokenizer:
    """Load a tokenizer by its name in the zoo, its folder, or the folder of a run that has it.

    Folders of `diffusers` and `transformers` tokenizers are read too. Those take frames of many sizes:
    `size` (height, width) chooses, unless the folder is a run's own copy, which keeps its size.
    """
    folder = zoo.tokenizer_folder(name_or_dir)
    config = read_json(folder / "config.json", "tokenizer")
    if is_foreign(config) and "kind" not in config:
        return load_adapted(folder, config, _stored_size(folder) or size).to(device)
    if config.get("kind") == "framepred-delta":
        raise FramepredError(f"{folder} is a delta tokenizer, a kind that is gone: train one with --recipe temporal")
    if str(config.get("kind")) not in KINDS:
        raise FramepredError(f"{folder} is no framepred tokenizer: its config.json says kind {config.get('kind')!r}")
    weights, about = read_weights(folder / "model.safetensors")
    if json.loads(about.get("config", "{}")) != config:
        raise FramepredError(f"{folder}/config.json is not the one that model.safetensors was saved with: restore both")
    if not isinstance(config.get("recipe"), dict):
        raise FramepredError(f"{folder}/config.json has no recipe of the tokenizer: restore it")
    tokenizer = _new_tokenizer(config, folder / "config.json")
    load_into(tokenizer, weights, folder / "model.safetensors")
    return tokenizer.eval().requires_grad_(False).to(device)


def _new_tokenizer(config: dict[str, Any], file: Path) -> OwnTokenizer:
    """Make a tokenizer of its config.json, without its weights."""
    made, recipe = KINDS[config["kind"]], config["recipe"]
    if not issubclass(made, TemporalAutoencoder):
        size = config["frame_size"]
        return made(apply(Recipe(), {"tokenizer": recipe}).tokenizer, (size[0], size[1]))
    shape: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in recipe.items()}
    try:
        shape["action_names"] = ActionNames(shape.get("action_names", ()), shape.pop("action_values", ()))
        return made(TemporalShape(**shape))
    except (TypeError, ValueError, RuntimeError) as error:
        raise FramepredError(f"{file} has no recipe of a temporal tokenizer ({error}): restore it") from error


def _stored_size(folder: Path) -> tuple[int, int] | None:
    """Return the frame size that `copy_tokenizer` wrote beside another library's tokenizer."""
    if not (folder / _ADAPTER).is_file():
        return None
    try:
        height, width = read_json(folder / _ADAPTER, "tokenizer")["frame_size"]
        return int(height), int(width)
    except (KeyError, ValueError, TypeError) as error:
        raise FramepredError(f"{folder / _ADAPTER} has no frame_size [height, width]: restore it") from error


def copy_tokenizer(source: Path, target: Path, size: tuple[int, int] | None = None) -> None:
    """Copy a tokenizer folder into a run, appearing whole; another library's with the frame size it is used at."""
    with writing_folder(target) as copy:
        copy_model_files(source, copy)
        if _is_foreign(copy) and not (copy / _ADAPTER).exists() and size:
            (copy / _ADAPTER).write_text(json.dumps({"frame_size": list(size)}) + "\n")
