"""Products with weights: whatever multiplies them, the result is torch's, and gradients flow."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.predictor.linear import Linear, _laid_out, linear


def _views(x: Tensor) -> list[Tensor]:
    """Return a (B, L, K) as callers have it: whole, the last positions, rows of columns, one row."""
    return [x, x[:, -9:], x.transpose(0, 1), x[0], x[:, :1], torch.cat([x, x], -1)[..., ::2]]


@settings(deadline=None)
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


def test_it_does_not_cut_a_compiled_graph() -> None:
    layer, x = Linear(8, 4), torch.randn(16, 8)
    assert torch.allclose(torch.compile(layer, backend="eager", fullgraph=True)(x), layer(x), atol=1e-6)


def test_gradients_flow() -> None:
    layer = Linear(8, 16)
    layer(torch.ones(32, 8)).sum().backward()
    assert layer.weight.grad is not None and bool(layer.weight.grad.any())


@pytest.mark.parametrize("intel", [False, True])
@pytest.mark.parametrize("rows", [None, (0, 48), (5, 37)])
def test_weights_that_stay_are_laid_out_once_and_give_torchs_numbers(
    rows: tuple[int, int] | None, intel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framepred.predictor.linear._intel", lambda: intel)
    x, weight = torch.randn(24, 64), torch.randn(48, 64)
    trained = weight.clone().requires_grad_(True)
    kept = len(_laid_out)
    with torch.inference_mode():
        expected = linear(x, trained, rows)
        assert len(_laid_out) == kept
        made = linear(x, weight, rows)
        assert torch.equal(linear(x, weight, rows), made)
    # oneDNN gives the same numbers, laid out or not; MKL its own.
    assert intel or torch.equal(made, expected)
    torch.testing.assert_close(made, expected)
    torch.testing.assert_close(expected, F.linear(x, weight if rows is None else weight[slice(*rows)]))
    if torch.backends.mkldnn.is_available():
        assert list(_laid_out[weight]) == [rows]
    del weight
    assert len(_laid_out) == kept


def test_what_changes_is_laid_out_again() -> None:
    layer, x = Linear(64, 48).requires_grad_(False), torch.randn(24, 64)
    with torch.inference_mode():
        before = layer(x)
    layer.load_state_dict({"weight": 2 * layer.weight})
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), 2 * before)
    with torch.no_grad():
        layer.weight[:8] = 0
    with torch.inference_mode():
        assert not layer(x)[:, :8].any()
        assert layer(x)[:, 8:].all()


def test_what_is_trained_is_never_kept() -> None:
    layer, x = Linear(64, 48), torch.randn(24, 64)
    with torch.inference_mode():
        before = layer(x)
    layer.weight.data.copy_(2 * layer.weight.data)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x), 2 * before)
