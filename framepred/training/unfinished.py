"""A run that is not finished: what `--resume` goes on from, and what it cannot change."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.io.atomic import cannot_write
from framepred.io.lock import locked
from framepred.sequence.layout import SequenceLayout

KEPT = ("resume-*.safetensors", "tokens/*.parquet")
"""Files that training can go on from."""

_FIXED = {
    "data": ("size", "fit", "fps", "validation_fraction"),
    "tokenizer": (
        "kind", "quantizer", "levels", "context_levels", "codebook_size", "code_dim", "distance", "downsampling",
        "width", "encoder_blocks", "decoder_blocks", "optimizer",
    ),
    "predictor": (
        "width", "layers", "heads", "kv_heads", "mlp_width", "window", "scan", "optimizer", "action_bins",
    ),
    "llm": ("layers", "trained", "lora_rank"),
}  # fmt: skip
"""Settings that decide of what a run's weights are made, or what they were trained on."""


def saved_steps(run: Path) -> dict[str, int]:
    """Return the last saved step of each stage that was begun, the latest stage last."""
    steps = {}
    for file in sorted(run.glob("resume-*.safetensors"), key=lambda file: file.stat().st_mtime):
        with safe_open(file, "pt") as stored:
            steps[file.stem.removeprefix("resume-")] = int(stored.metadata()["step"])
    return steps


def layout_note(layout: SequenceLayout) -> dict[str, str]:
    """Return what stands beside a predictor's saved state: what its ids mean."""
    return {"layout": json.dumps(layout.to_json())}


def stored_layout(run: Path) -> SequenceLayout | None:
    """Return what the ids of a predictor mean whose training was begun: new data must not change it under the weights.

    None where nothing is saved, or framepred 0.1 saved it.
    """
    file = run / "resume-predictor.safetensors"
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as stored:
            about = stored.metadata() or {}
        return SequenceLayout.from_json(json.loads(about["layout"])) if "layout" in about else None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FramepredError(f"cannot resume from {file} ({reason}): delete it to train this stage afresh") from error


def check_empty(folder: Path) -> None:
    """Raise FramepredError for a folder to begin in that holds something; what a kill left half written is hidden."""
    if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
        raise FramepredError(
            f"{folder} exists and is not empty: give --resume to go on, --overwrite to start anew, or another -o"
        )


def check_resumed(run: Path, old: Recipe, new: Recipe) -> None:
    """Raise FramepredError where the recipe changes what a run that was begun with `old` has in its weights."""
    has_tokenizer = any(run.glob("tokenizer/*.safetensors")) or (run / "resume-tokenizer.safetensors").exists()
    has_predictor = (run / "model.safetensors").exists() or (run / "resume-predictor.safetensors").exists()
    begun = {"data": has_tokenizer or has_predictor, "tokenizer": has_tokenizer}
    for part, names in _FIXED.items():
        for name in names if begun.get(part, has_predictor) else ():
            was, wanted = (getattr(getattr(recipe, part), name) for recipe in (old, new))
            if was != wanted:
                raise FramepredError(
                    f"{part}.{name} is {_shown(was)} in {run}, not {_shown(wanted)}: what is trained already cannot "
                    "change it; leave it out, or train another run"
                )


def _shown(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@contextmanager
def only_trainer(run: Path) -> Iterator[None]:
    """Hold a run, which is made where it does not exist; of many processes, the first does so."""
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(run, error) from error
    with locked(run, again=True):
        yield
