"""Which weights of a language model are trained: all, low-rank updates, or only the rows added for frames."""

from typing import Any

import torch
from torch import nn

from framepred.config.recipe import LLMRecipe
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.predictor.llama import Llama

_MATRICES = ["qkv", "out", "gate_up", "down"]


def adapt(model: Llama, recipe: LLMRecipe, seed: int) -> None:
    """Choose the weights that learn, as the recipe says; the rows must be separate (`embedding.separate_text`)."""
    if recipe.trained == "all":
        return
    if recipe.trained == "lora":
        add_lora(model, recipe.lora_rank, seed)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_added(name) or "lora_" in name)


def inherited(model: Llama) -> tuple[nn.Parameter, ...]:
    """Return the weights that learn, except the added rows: those of the language model and its low-rank updates."""
    return tuple(p for name, p in model.named_parameters() if p.requires_grad and not _is_added(name))


def _is_added(name: str) -> bool:
    return name.endswith(("original1", "vectors"))


def add_lora(model: Llama, rank: int, seed: int) -> None:
    """Add the product of two low-rank factors, 0 at first, to each matrix of the layers (arXiv 2106.09685)."""
    ensure_torchvision()
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise FramepredError(f"llm.trained = lora needs peft ({error}): pip install 'framepred[llm]'") from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=_MATRICES), model)


def merge_updates(model: Llama) -> None:
    """Add the low-rank updates to their matrices, so that the model has plain layers again."""
    for parent in list(model.modules()):
        children: list[tuple[str, Any]] = list(parent.named_children())
        for name, child in children:
            if hasattr(child, "lora_A"):
                child.merge()
                setattr(parent, name, child.get_base_layer())
