"""Where a run computes."""

import torch

from framepred.errors import FramepredError


def choose_device(device: str) -> str:
    """Return the device that is meant by a name or "auto"; FramepredError for one that cannot be used."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise FramepredError(
            f"device {device!r} cannot be used ({str(error).splitlines()[0]}): give cpu or auto"
        ) from error
    return device
