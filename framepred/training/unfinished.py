"""A run that is not finished: what `--resume` goes on from, and what it cannot change."""

from pathlib import Path

from safetensors import safe_open

from framepred.config.recipe import Recipe
from framepred.errors import FramepredError

KEPT = ("resume-*.safetensors", "tokens/*.parquet")
"""Files that training can go on from."""

_FIXED = {
    "data": ("size", "fps", "validation_fraction"),
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
