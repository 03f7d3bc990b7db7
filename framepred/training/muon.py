"""Muon, an optimizer with orthogonalized steps; unlike torch.optim.Muon also for convolutions."""

import math
from typing import Any

import torch
from torch import Tensor, nn

_MOMENTUM = 0.95


class Muon(torch.optim.Optimizer):
    """Updates weights (O, ...), each taken as a matrix of O rows, by orthogonalized momentum (arXiv 2502.16982).

    A step is scaled to the size of AdamW's, so that both use the same learning rate. For matrices in bf16 autocast the
    numbers are those of torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`.
    """

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update every weight that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            same_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    same_shape.setdefault((len(weight), weight[0].numel()), []).append(weight)
            for shape, weights in same_shape.items():
                size = 0.2 * math.sqrt(max(shape))
                # All weights of a shape together: small products one by one leave the processor idle.
                updates = orthogonalized(torch.stack([self._momentum(weight).flatten(1) for weight in weights]))
                for weight, update in zip(weights, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.view_as(weight), alpha=-group["lr"] * size)

    def _momentum(self, weight: nn.Parameter) -> Tensor:
        """Add a weight's gradient to its momentum; return the direction of its step (Nesterov's)."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(weight.grad)
        momentum = state["momentum_buffer"].lerp_(weight.grad, 1 - _MOMENTUM)
        return weight.grad.lerp(momentum, _MOMENTUM)


def orthogonalized(matrices: Tensor) -> Tensor:
    """Bring the singular values of matrices (n, R, C) near 1 by five Newton-Schulz steps, in autocast's dtype."""
    x = matrices
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.mT if tall else x
