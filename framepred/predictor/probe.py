"""Fast paths use private operators of torch: a probe tests each once, and plain torch computes where it fails."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor


def probe(works: Callable[[], bool]) -> Callable[[], bool]:
    """Run a test of a fast path once a process; False where it raises: the operator is missing or has changed."""

    @cache
    def passes() -> bool:
        try:
            with torch.autocast("cpu", enabled=False):
                return works()
        except Exception:
            return False

    return passes


def plain_inference(x: Tensor) -> bool:
    """Say whether x is fp32 on a CPU, in inference mode and without autocast: where fast paths may run."""
    # This condition is first: torch.compile cannot trace the one for inference mode.
    if torch.compiler.is_compiling():
        return False
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled("cpu")
    )
