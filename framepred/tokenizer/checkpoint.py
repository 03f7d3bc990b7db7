"""Folders ⇄ tokenizers: safetensors only, every hash verified."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from framepred.config.action_names import ActionNames, values_of
from framepred.config.frame_size import FITS, Fit, FrameSize, fit_of
from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.io.atomic import write_text, writing_folder
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
    _write_use(folder, None, fit_of(tokenizer.frame_size))
    replace_files(
        folder,
        {"config.json": text, "recipe.toml": recipe_toml},
        weights,
        {"config": json.dumps(config, sort_keys=True)},
    )
    return tokenizer_sha256(folder)


def load_tokenizer(
    name_or_dir: str | Path = zoo.DEFAULT, size: tuple[int, int] | None = None, device: str = "cpu",
    fit: Fit | None = None,
) -> OwnTokenizer | AdaptedTokenizer:  # fmt: skip
    """Load a tokenizer by its name in the zoo, its folder, or the folder of a run that has it.

    Folders of `diffusers` and `transformers` tokenizers are read too. Those take frames of many sizes:
    `size` (height, width) chooses, unless the folder is a run's own copy, which keeps its size. Its `frame_size` is a
    `FrameSize`: pictures are made to fit as is stored beside it, or as `fit` says.
    """
    folder = zoo.tokenizer_folder(name_or_dir)
    stored, own_fit = _stored_use(folder)
    tokenizer = _load(folder, stored or size).to(device)
    tokenizer.frame_size = FrameSize(tokenizer.frame_size, fit or own_fit)
    return tokenizer


def _load(folder: Path, size: tuple[int, int] | None) -> OwnTokenizer | AdaptedTokenizer:
    config = read_json(folder / "config.json", "tokenizer")
    if is_foreign(config) and "kind" not in config:
        return load_adapted(folder, config, size)
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
    return tokenizer.eval().requires_grad_(False)


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


def stored_fit(name_or_dir: str | Path) -> Fit:
    """Return how pictures are made to fit the frames of a tokenizer, given as to `load_tokenizer`."""
    return _stored_use(zoo.tokenizer_folder(name_or_dir))[1]


def _stored_use(folder: Path) -> tuple[tuple[int, int] | None, Fit]:
    """Return how a tokenizer is used, as is stored beside it: another library's frame size, if any, and the fit."""
    if not (folder / _ADAPTER).is_file():
        return None, "crop"
    about = read_json(folder / _ADAPTER, "tokenizer")
    try:
        size, fit = about.get("frame_size"), about.get("fit", "crop")
        if fit in FITS and (size is not None or "fit" in about):
            return (None if size is None else (int(size[0]), int(size[1]))), fit
    except (LookupError, ValueError, TypeError) as error:
        raise FramepredError(f"{folder / _ADAPTER} is not valid ({error!r}): restore it") from error
    raise FramepredError(
        f"{folder / _ADAPTER} has no frame_size [height, width] and no fit, one of {', '.join(FITS)}: restore it"
    )


def _write_use(folder: Path, size: tuple[int, int] | None, fit: Fit) -> None:
    """Write how a tokenizer is used beside it; a file that would say nothing is none."""
    about = ({} if size is None else {"frame_size": list(size)}) | ({} if fit == "crop" else {"fit": fit})
    if about:
        write_text(folder / _ADAPTER, json.dumps(about) + "\n")
    else:
        (folder / _ADAPTER).unlink(missing_ok=True)


def copy_tokenizer(source: Path, target: Path, size: tuple[int, int] | None = None) -> None:
    """Copy a tokenizer folder into a run, appearing whole, to be used at a `size`: its fit, another library's sides."""
    with writing_folder(target) as copy:
        copy_model_files(source, copy)
        if size is None:
            return
        sides = (_stored_use(copy)[0] or size) if _is_foreign(copy) else None
        _write_use(copy, sides, fit_of(size))
