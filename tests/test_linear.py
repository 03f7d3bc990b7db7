"""Products with weights: whatever multiplies them, the result is torch's, and gradients flow."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.linear import Linear, linear


def _views(x: Tensor) -> list[Tensor]:
    """Return a (B, L, K) as callers have it: whole, the last positions, rows of columns, one row."""
    return [x, x[:, -9:], x.transpose(0, 1), x[0], x[:, :1], torch.cat([x, x], -1)[..., ::2]]


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 70), st.integers(1, 50))
def test_a_product_is_torchs(batch: int, length: int, inputs: int, outputs: int) -> None:
    generator = torch.Generator().manual_seed(batch + length)
    x = torch.randn(batch, length, inputs, generator=generator)
    weight = torch.randn(outputs + 3, inputs, generator=generator)[3:]
    for view in _views(x):
        with torch.inference_mode():
            made, expected = linear(view, weight), F.linear(view, weight)
        torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
        assert made.shape == expected.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay(dtype: torch.dtype) -> None:
    layer = Linear(8, 16).to(dtype)
    with torch.inference_mode():
        assert layer(torch.ones(32, 8, dtype=dtype)).dtype == dtype


def test_autocast_still_decides_the_dtype() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert Linear(8, 16)(torch.ones(32, 8)).dtype == torch.bfloat16


def test_gradients_flow() -> None:
    layer = Linear(8, 16)
    layer(torch.ones(32, 8)).sum().backward()
    assert layer.weight.grad is not None and bool(layer.weight.grad.any())
