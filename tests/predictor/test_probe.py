"""Without a fast path, because its operator is missing or gives other numbers, plain torch gives the same tokens."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from random_run import random_context, write_random_run
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.predictor import attention, cpu
from framepred.predictor.probe import probe
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

PROBES = {"onednn": cpu._onednn_is_faster, "flash": attention._flash_works, "blocks": attention._blocks_work}


def missing(*args: object) -> Any:
    raise AttributeError("no such operator")


def other_numbers(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator of another torch: its results are 1 larger."""

    def changed(*args: Any, **settings: Any) -> Any:
        made = operator(*args, **settings)
        return tuple(x + 1 for x in made) if isinstance(made, tuple) else made + 1

    return changed


class Overload:
    """An operator as torch.ops has it: called by its default overload."""

    def __init__(self, default: Callable[..., Any]) -> None:
        self.default = default


def forget() -> None:
    for passes in (*PROBES.values(), cpu.product):
        passes.cache_clear()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _probes_run_again() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_random_run(tmp_path_factory.mktemp("run")))


def rollout(run: Run, decoder: str, samples: int) -> Tensor:
    tokens, actions = random_context()
    made = predict(run, tokens, actions, 4, samples, Sampling(temperature=0.7, seed=3), decoder)
    return torch.stack([moment.tokens for moment in made])


def break_flash(patch: pytest.MonkeyPatch, how: Callable[..., Any]) -> None:
    name = "_scaled_dot_product_flash_attention_for_cpu"
    operator = getattr(torch.ops.aten, name).default
    patch.setattr(torch.ops.aten, name, Overload(how if how is missing else how(operator)))


def break_onednn(patch: pytest.MonkeyPatch, how: Callable[..., Any]) -> None:
    if how is missing:
        patch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", missing)
    else:
        patch.setattr(torch.ops.mkldnn, "_linear_pointwise", how(torch.ops.mkldnn._linear_pointwise))
    # It would be chosen on any processor, if it worked.
    patch.setattr(cpu, "perf_counter", iter(range(10_000, 0, -1)).__next__)


@pytest.mark.parametrize("decoder", ["sequential", "speculative"])
@pytest.mark.parametrize("how", [missing, other_numbers])
@pytest.mark.parametrize(("name", "harm"), [("flash", break_flash), ("onednn", break_onednn)])
def test_a_rollout_without_a_fast_path_has_the_same_tokens(
    name: str, harm: Callable[..., None], how: Callable[..., Any], decoder: str, run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    expected = {samples: rollout(run, decoder, samples) for samples in (1, 3)}
    forget()
    harm(monkeypatch, how)
    for samples, tokens in expected.items():
        assert torch.equal(rollout(run, decoder, samples), tokens)
    assert not PROBES[name](), "the fast path is off"


@pytest.mark.parametrize("decoder", ["sequential", "speculative"])
def test_a_rollout_without_packed_layers_has_the_same_tokens(
    decoder: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = rollout(run, decoder, 3)
    monkeypatch.setattr(cpu, "pack", lambda *weight: None)
    assert torch.equal(rollout(run, decoder, 3), expected)


@pytest.mark.parametrize("how", [missing, other_numbers])
def test_training_without_block_attention_has_torchs_gradients(
    how: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = torch.randn(3, 2, 4, 9, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = torch.autograd.grad(y.square().sum(), (q, k, v))
    monkeypatch.setattr(torch, "_softmax_backward_data", how if how is missing else how(torch._softmax_backward_data))
    made = torch.autograd.grad(attention.attend_in_blocks(q, k, v, 4).square().sum(), (q, k, v))
    assert not attention._blocks_work()
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(made, expected, strict=True))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs oneDNN")
@pytest.mark.parametrize(("onednn", "chosen"), [(3, cpu.ONEDNN), (9, cpu.TORCH), (10, cpu.TORCH), (20, cpu.TORCH)])
def test_onednn_is_chosen_where_it_is_clearly_faster(
    onednn: int, chosen: cpu.Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch's own product takes 10 s on this clock; from 8 s on, oneDNN is not clearly faster."""
    ticks = [0.0]
    for _ in range(12):
        for seconds in (10, onednn):
            ticks += [ticks[-1], ticks[-1] + seconds]
    monkeypatch.setattr(cpu, "perf_counter", iter(ticks[1:]).__next__)
    assert cpu.product() is chosen


def test_every_fast_path_works_on_this_torch() -> None:
    assert attention._flash_works()
    assert attention._blocks_work()


def test_a_probe_runs_once_outside_autocast() -> None:
    seen = []

    @probe
    def works() -> bool:
        seen.append(torch.is_autocast_enabled("cpu"))
        return True

    with torch.autocast("cpu", torch.bfloat16):
        assert works() and works()
    assert seen == [False]
