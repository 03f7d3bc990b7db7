"""Products with packed weights: the numbers are torch's, whatever multiplies, and a changed weight is packed again."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from framepred.predictor import cpu
from framepred.predictor.cpu import ONEDNN, TORCH, Product, linear

PRODUCTS = pytest.mark.parametrize("product", [TORCH, ONEDNN], ids=["torch", "onednn"])


@pytest.fixture(autouse=True)
def _needs_onednn(request: pytest.FixtureRequest) -> None:
    if "onednn" in request.node.name and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")


def _views(x: Tensor) -> list[Tensor]:
    """Return a (B, L, K) as callers have it: all, the last positions, rows of columns, one row."""
    return [x, x[:, -9:], x.transpose(0, 1), x[0], x[:, :1], torch.cat([x, x], -1)[..., ::2]]


@given(st.integers(1, 5), st.integers(1, 40), st.integers(1, 70), st.integers(1, 50), st.sampled_from([TORCH, ONEDNN]))
def test_a_product_is_torchs(batch: int, length: int, inputs: int, outputs: int, product: Product) -> None:
    generator = torch.Generator().manual_seed(batch + length)
    x = torch.randn(batch, length, inputs, generator=generator)
    weight = torch.randn(outputs + 3, inputs, generator=generator)[3:]
    with pytest.MonkeyPatch.context() as patch, torch.inference_mode():
        patch.setattr(cpu, "product", lambda: product)
        for view in _views(x):
            made, expected = linear(view, weight), F.linear(view, weight)
            torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
            assert made.shape == expected.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_stay(dtype: torch.dtype) -> None:
    with torch.inference_mode():
        assert linear(torch.ones(32, 8, dtype=dtype), torch.ones(16, 8, dtype=dtype)).dtype == dtype


def test_autocast_still_decides_the_dtype() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert linear(torch.ones(32, 8), torch.ones(16, 8)).dtype == torch.bfloat16


def test_it_does_not_cut_a_compiled_graph() -> None:
    weight, x = torch.randn(4, 8), torch.randn(16, 8)
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x, weight), linear(x, weight), atol=1e-6)


def test_gradients_flow() -> None:
    weight = torch.ones(16, 8, requires_grad=True)
    linear(torch.ones(32, 8), weight).sum().backward()
    assert weight.grad is not None and bool(weight.grad.any())


@PRODUCTS
@pytest.mark.parametrize("rows", [None, (0, 48), (5, 37)])
def test_a_weight_is_packed_once_and_gives_torchs_numbers(
    rows: tuple[int, int] | None, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "product", lambda: product)
    x, weight = torch.randn(24, 64), torch.randn(48, 64)
    kept = len(cpu._packed)
    with torch.inference_mode():
        made, packed = linear(x, weight, rows), cpu.pack(weight, rows)
        assert torch.equal(linear(x, weight, rows), made)
        assert cpu.pack(weight, rows) is packed
    torch.testing.assert_close(made, F.linear(x, weight if rows is None else weight[slice(*rows)]))
    assert list(cpu._packed[weight]) == [rows]
    del weight
    assert len(cpu._packed) == kept


def test_a_weight_that_changed_is_packed_again() -> None:
    layer, x = nn.Linear(64, 48, bias=False).requires_grad_(False), torch.randn(24, 64)
    with torch.inference_mode():
        before = linear(x, layer.weight)
    layer.load_state_dict({"weight": 2 * layer.weight})
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, layer.weight), 2 * before)
    with torch.no_grad():
        layer.weight[:8] = 0
    with torch.inference_mode():
        assert not linear(x, layer.weight)[:, :8].any()
        assert linear(x, layer.weight)[:, 8:].all()


def test_a_weight_in_training_is_never_packed() -> None:
    weight, x = torch.randn(48, 64, requires_grad=True), torch.randn(24, 64)
    with torch.inference_mode():
        before = linear(x, weight)
    assert weight not in cpu._packed
    weight.data.copy_(2 * weight.data)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), 2 * before)


@PRODUCTS
def test_a_product_is_added_in_place(product: Product) -> None:
    total, x, weight = torch.randn(5, 7), torch.randn(5, 3), torch.randn(7, 3)
    expected = total + x @ weight.t()
    with torch.inference_mode():
        made = product.add(total, x, product.pack(weight))
    assert made is total
    torch.testing.assert_close(total, expected)
