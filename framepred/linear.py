"""Products with weights, where a Llama's time goes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ROWS = 8
"""Rows below which a product waits for the weights, not for the multipliers."""


class Linear(nn.Linear):
    """`nn.Linear` without a bias, by `linear`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight)


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply x (…, K) with weight (N, K) → (…, N).

    torch multiplies fp32 on CPUs by MKL, which takes twice the time of oneDNN on a processor that Intel did not make
    (scripts/bench_rollout); without gradients it is oneDNN.
    """
    if (
        x.device.type == "cpu"
        and torch.is_inference_mode_enabled()
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _ROWS * x.shape[-1]
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
    ):
        return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return F.linear(x, weight)
