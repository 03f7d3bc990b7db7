"""Muon: steps whose directions all count alike, for matrices and also for convolutions, unlike torch.optim.Muon."""

import math
from typing import Any

import torch
from torch import Tensor

_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Moves weights (O, ...), each a matrix of O rows, by their orthogonalized momentum (arXiv 2502.16982).

    A step is scaled to be as large as AdamW's, so that both take one learning rate. For matrices, and where autocast
    computes in bf16, it is torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for weight in (p for p in group["params"] if p.grad is not None):
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - _MOMENTUM)
                update = weight.grad.lerp(momentum, _MOMENTUM).flatten(1)
                size = 0.2 * math.sqrt(max(update.shape))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(orthogonalized(update).view_as(weight), alpha=-group["lr"] * size)


def orthogonalized(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near 1 by five steps of Newton and Schulz, in autocast's precision."""
    x = matrix
    if tall := x.shape[0] > x.shape[1]:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if tall else x
