"""The precision that a training computes in."""

import platform

import torch
from accelerate import Accelerator

from framepred.config.recipe import TrainingRecipe


def arithmetic(accelerator: Accelerator, loop: TrainingRecipe) -> torch.autocast:
    """Return the context that computes in the recipe's precision."""
    bf16 = computes_bf16(accelerator.device.type) if loop.precision == "auto" else loop.precision == "bf16"
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=bf16)


def computes_bf16(device: str) -> bool:
    """Say whether a kind of device has instructions for bf16: without them, a step in it takes 2.7 times as long."""
    if device != "cpu" or platform.machine() not in ("x86_64", "AMD64"):
        return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    # Of torch, which has no public way to ask.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
