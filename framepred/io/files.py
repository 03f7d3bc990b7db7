"""What checkpoints are made of: JSON and safetensors files, read with clear errors, written whole or not at all."""

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.io.atomic import writing
from framepred.io.interrupts import interrupts_held


def file_sha256(path: Path) -> str:
    """Return a file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(file: Path, what: str) -> dict[str, Any]:
    """Read a JSON object that belongs to a `what`."""
    try:
        value = json.loads(file.read_text())
    except FileNotFoundError:
        raise FramepredError(
            f"{file.parent} is no {what} (no {file.name}): give a folder that framepred train wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise FramepredError(f"{file} cannot be read ({error}): restore the {what}") from error
    if not isinstance(value, dict):
        raise FramepredError(f"{file} is not a JSON object: restore the {what}")
    return value


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file → (tensors, floats in fp32; metadata)."""
    try:
        # An interrupt in the middle of a tensor becomes another error in what is not Python.
        with interrupts_held(), safe_open(file, "pt") as stored:
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}
            about = stored.metadata() or {}
    except FileNotFoundError:
        raise FramepredError(
            f"{file} does not exist: the training did not finish (--resume), or the folder is not whole"
        ) from None
    except (SafetensorError, OSError) as error:
        raise FramepredError(
            f"{file} is not a whole safetensors file ({error}): restore it from where it came"
        ) from error
    weights = {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}
    if bad := next((k for k, v in weights.items() if v.is_floating_point() and not bool(v.isfinite().all())), None):
        raise FramepredError(f"{file} holds weights that are no numbers ({bad}): restore it, or train again")
    return weights, about


def load_into(module: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Load weights into a module; errors name the `file` they are from."""
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise FramepredError(
            f"{file} does not fit its config.json ({reason}): restore both from where they came"
        ) from error


def replace_files(folder: Path, files: dict[str, str], weights: dict[str, Tensor], about: dict[str, str]) -> None:
    """Write texts and model.safetensors into a folder; only when all are written does each replace its old one."""
    with ExitStack() as stack:
        # An ExitStack ends in reverse order: the weights, which make a checkpoint complete, come last.
        temporary = stack.enter_context(writing(folder / "model.safetensors"))
        data = memoryview(save(weights, {"format": "pt", **about}))
        with temporary.open("wb") as file:
            file.write(sorted_header(bytes(data[: 8 + int.from_bytes(data[:8], "little")])))
            file.write(data[8 + int.from_bytes(data[:8], "little") :])
        for name, text in files.items():
            stack.enter_context(writing(folder / name)).write_text(text, encoding="utf-8")


def sorted_header(header: bytes) -> bytes:
    """Put the metadata in the header of a safetensors file in order: safetensors writes them in a random one.

    The same weights make the same file then, and the same sha256.
    """
    size = int.from_bytes(header[:8], "little")
    about = json.loads(header[8:])
    if "__metadata__" in about:
        about["__metadata__"] = dict(sorted(about["__metadata__"].items()))
    text = json.dumps(about, separators=(",", ":"), ensure_ascii=False).encode()
    return header[:8] + text.ljust(size) if len(text) <= size else header
