"""Muon: torch's for matrices, the same for convolutions as for the matrices that they are."""

import pytest
import torch
from torch import nn

from framepred.config.recipe import Recipe, apply
from framepred.training.frames import Actions, Frames
from framepred.training.initialisation import tokenizer_to_train
from framepred.training.loop import Stage, make_accelerator
from framepred.training.muon import Muon, orthogonalized
from framepred.training.objectives import tokenizer_stage

CONVOLUTION = (6, 4, 3, 3)


def moved(weight: torch.Tensor, rate: float, decay: float, steps: int = 3) -> torch.Tensor:
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    optimizer = Muon([parameter], lr=rate, weight_decay=decay)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        parameter.grad = torch.empty_like(parameter).copy_(
            torch.randn(parameter.numel(), generator=generator).view(parameter.shape)
        )
        with torch.autocast("cpu", torch.bfloat16):
            optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("shape", [(6, 36), (36, 6), (8, 8)])
def test_matrices_move_as_by_torch(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theirs = nn.Parameter(weight.clone())
    optimizer = torch.optim.Muon([theirs], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        theirs.grad = torch.randn(weight.numel(), generator=generator).view(shape)
        optimizer.step()
    # Both round to bf16, torch at one more place.
    assert torch.allclose(moved(weight, 0.01, 0.1), theirs.detach(), atol=5e-4)
    assert float((theirs.detach() - weight).abs().mean()) > 3e-3


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_moves_as_its_matrix(memory_format: torch.memory_format) -> None:
    weight = torch.randn(CONVOLUTION, generator=torch.Generator().manual_seed(0))
    made = moved(weight.to(memory_format=memory_format), 0.01, 0.1)
    assert made.is_contiguous(memory_format=memory_format)
    assert torch.allclose(made.flatten(1), moved(weight.flatten(1), 0.01, 0.1), atol=1e-6)


def test_every_direction_of_a_step_counts_about_alike() -> None:
    matrix = torch.randn(12, 40, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 1, 12)[:, None]
    before, after = (torch.linalg.svdvals(m.float()) for m in (matrix, orthogonalized(matrix[None])[0]))
    assert float(before.max() / before.min()) > 300
    assert float(after.max() / after.min()) < 6
    assert 1 < float(after.max()) < 1.5


def test_what_has_no_gradient_stays() -> None:
    weights = [nn.Parameter(torch.ones(3, 3)) for _ in range(2)]
    weights[0].grad = torch.eye(3)
    Muon(weights, lr=0.1, weight_decay=0.1).step()
    assert not torch.equal(weights[0], torch.ones(3, 3))
    assert torch.equal(weights[1], torch.ones(3, 3))


def test_a_tokenizer_moves_by_it_but_where_it_meets_pixels_and_codes() -> None:
    recipe = apply(Recipe(), {"data": {"size": [32, 32]}, "tokenizer": {"width": 32}})
    model = tokenizer_to_train(recipe, None, Actions())
    frames = Frames(torch.zeros(8, 3, 32, 32, dtype=torch.uint8), (8,), ("",) * 8)

    def stage(recipe: Recipe) -> Stage:
        return tokenizer_stage(model, frames, frames, recipe, make_accelerator())

    moved = {id(p) for p in stage(recipe).matrices}
    names = {name: p for name, p in model.named_parameters() if id(p) in moved}
    assert len(names) == len(moved)
    assert sum(p.numel() for p in names.values()) > 0.9 * sum(p.numel() for p in model.parameters())
    at_ends = [p for layer in (model.encoder[-1], model.decoder[0], model.decoder[-2]) for p in layer.parameters()]
    assert not moved & {id(p) for p in at_ends}
    by_adam = apply(recipe, {"tokenizer": {"optimizer": "adamw"}})
    assert not stage(by_adam).matrices
