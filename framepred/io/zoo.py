"""Names → folders: the tokenizers and runs that come with framepred, and those on the Hugging Face Hub."""

import json
import math
from pathlib import Path
from typing import Any

from framepred.errors import FramepredError
from framepred.io import hub
from framepred.io.toml import built_in

DEFAULT = "doom-64"


def _roots(kind: str) -> list[Path]:
    package = Path(__file__).parents[1]
    # A wheel carries the zoo inside the package; a checkout has it beside.
    return [root for root in (package / "shipped" / kind, package.parent / kind) if root.is_dir()]


def names(kind: str) -> list[str]:
    """Return the names in the zoo of `kind`: "tokenizers" or "models"."""
    return sorted({p.name for root in _roots(kind) for p in root.iterdir() if (p / "config.json").is_file()})


def resolve(kind: str, name_or_dir: str | Path) -> Path:
    """Return the folder that a name, a path or hf://owner/name means; "tokenizers" or "models" say which zoo."""
    path = hub.resolve(name_or_dir)
    if path.is_dir():
        return path
    for root in _roots(kind):
        if (root / str(name_or_dir) / "config.json").is_file():
            return root / str(name_or_dir)
    what = kind.removesuffix("s")
    known = ", ".join(names(kind)) or "none here"
    raise FramepredError(f"{what} {str(name_or_dir)!r} is neither a folder nor in the zoo; the zoo has: {known}")


def tokenizer_folder(name_or_dir: str | Path) -> Path:
    """Return the folder of a tokenizer that is named, given, or part of a run."""
    for kind in ("tokenizers", "models"):
        if str(name_or_dir) in names(kind):
            folder = resolve(kind, name_or_dir)
            break
    else:
        folder = resolve("tokenizers", name_or_dir)
    return folder / "tokenizer" if (folder / "tokenizer").is_dir() else folder


def describe_zoo() -> list[dict[str, Any]]:
    """Return name, kind and one line for everything that comes with framepred; no weights are loaded."""
    items = []
    for zoo, kind in (("models", "run"), ("tokenizers", "tokenizer")):
        for name in names(zoo):
            folder = resolve(zoo, name)
            tokenizer = json.loads((tokenizer_folder(folder) / "config.json").read_text())
            size, tokens = "x".join(map(str, tokenizer["frame_size"])), math.prod(tokenizer["grid"])
            line = (
                f"{size}, {tokens} tokens a frame of {tokenizer['codebook_size']} codes, "
                f"{_count_values(folder / 'model.safetensors') / 1e6:.1f}M parameters"
            )
            items.append({"name": name, "kind": kind, "summary": line, "path": str(folder)})
    items += [
        {"name": n, "kind": "recipe", "summary": "for framepred train --recipe", "path": n} for n in built_in("recipe")
    ]
    return items


def _count_values(weights: Path) -> int:
    """Return how many numbers a safetensors file holds, from its header alone."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
