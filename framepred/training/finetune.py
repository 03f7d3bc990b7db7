"""How a language model is trained on: whole, by low-rank updates, or nothing of it but the rows that were added."""

from typing import Any

import torch
from torch import nn

from framepred.config.recipe import LLMRecipe
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.predictor.llama import Llama

_MATRICES = ["qkv", "out", "gate_up", "down"]


def adapt(model: Llama, recipe: LLMRecipe, seed: int) -> None:
    """Let learn of a Llama, whose rows are parted (`embedding.part_text`), what the recipe says."""
    if recipe.trained == "all":
        return
    if recipe.trained == "lora":
        _add_lora(model, recipe.lora_rank, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_added(name) or "lora_" in name)


def inherited(model: Llama) -> tuple[nn.Parameter, ...]:
    """Return what learns of the language model itself, its low-rank updates included: all but the added rows."""
    return tuple(p for name, p in model.named_parameters() if p.requires_grad and not _is_added(name))


def _is_added(name: str) -> bool:
    return name.endswith(("original1", "vectors"))


def _add_lora(model: Llama, rank: int, seed: int) -> None:
    """Add to each matrix of the layers the product of two thin ones, at first 0 (arXiv 2106.09685)."""
    ensure_torchvision()
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise FramepredError(f"llm.trained = lora needs peft ({error}): pip install 'framepred[llm]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_MATRICES), model)


def merge_updates(model: Llama) -> None:
    """Add low-rank updates to their matrices: the model is plain again."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if hasattr(child, "lora_A"):
                child.merge()
                setattr(parent, name, child.get_base_layer())
