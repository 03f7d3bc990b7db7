"""Quantizers: ids and codes name the same thing, gradients pass, codebooks move only in training."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.config.recipe import Recipe, apply
from framepred.tokenizer.quantizers import EMAVQ, FSQ, QUANTIZERS, Quantizer

LEVELS = [(8, 8, 4, 4), (8, 5, 5, 5), (2,), (3, 2), (64,)]


def codes(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def digit_codes(levels: int) -> Tensor:
    """Return one z for each of a channel's digits, found by trying."""
    probes = torch.linspace(-10, 10, 4001)
    digits = FSQ((levels,))(probes.view(-1, 1, 1, 1))[1].flatten()
    assert sorted(set(digits.tolist())) == list(range(levels))
    return torch.stack([probes[digits == d].mean() for d in range(levels)])


KINDS = [
    *map(FSQ, LEVELS),
    EMAVQ(32, 6),
    EMAVQ(32, 6, cosine=True),
]


@pytest.mark.parametrize("quantizer", KINDS, ids=str)
@pytest.mark.parametrize("training", [True, False])
def test_lookup_of_the_ids_is_the_quantized_code(quantizer: Quantizer, training: bool) -> None:
    quantizer = copy.deepcopy(quantizer).train(training)
    z = codes(3, quantizer.dim, 4, 5, scale=2)
    before = copy.deepcopy(quantizer)
    quantized, ids, loss = quantizer(z)
    assert quantized.shape == z.shape
    assert ids.shape == (3, 4, 5)
    assert ids.dtype == torch.int64
    assert 0 <= int(ids.min()) <= int(ids.max()) < quantizer.codebook_size
    assert loss.ndim == 0
    if not training:
        assert torch.allclose(before.lookup(ids), quantized, atol=1e-5)
    elif isinstance(quantizer, FSQ):
        assert torch.allclose(quantizer.lookup(ids), quantized, atol=1e-5)


@pytest.mark.parametrize("levels", LEVELS)
def test_fsq_names_every_id_once_and_reaches_it(levels: tuple[int, ...]) -> None:
    quantizer = FSQ(levels)
    assert quantizer.codebook_size == math.prod(levels)
    grid = torch.cartesian_prod(*[digit_codes(n) for n in levels]).view(-1, len(levels), 1, 1)
    quantized, ids, _ = quantizer(grid)
    assert sorted(ids.flatten().tolist()) == list(range(quantizer.codebook_size))
    assert len(quantized.flatten(1).round(decimals=4).unique(dim=0)) == quantizer.codebook_size
    assert float(quantized.min()) == pytest.approx(-1)
    assert float(quantized.max()) == pytest.approx(1)


@settings(max_examples=30)
@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_fsq_codes_that_are_neighbours_have_neighbouring_digits(levels: list[int], seed: int) -> None:
    quantizer = FSQ(tuple(levels))
    z = codes(1, len(levels), 8, 8, seed=seed, scale=2)
    quantized, _, _ = quantizer(z)
    bigger, _, _ = quantizer(z + 0.5)
    assert bool((bigger >= quantized - 1e-6).all())


@pytest.mark.parametrize("quantizer", [FSQ((8, 5, 3)), EMAVQ(16, 3)], ids=str)
def test_gradient_passes_straight_through(quantizer: FSQ | EMAVQ) -> None:
    z = codes(2, 3, 4, 4).requires_grad_(True)
    quantized, _, _ = quantizer(z)
    quantized.sum().backward()
    assert z.grad is not None
    assert bool((z.grad > 0).all())
    if isinstance(quantizer, EMAVQ):
        assert torch.allclose(z.grad, torch.ones_like(z))


def test_ema_pulls_codes_towards_their_centres_by_its_loss() -> None:
    quantizer = EMAVQ(4, 2).eval()
    z = codes(2, 2, 3, 3).requires_grad_(True)
    quantized, _, loss = quantizer(z)
    assert loss.item() == pytest.approx(0.25 * (z - quantized).square().mean().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.allclose(gradient, 0.25 * 2 * (z - quantized) / z.numel(), atol=1e-6)


def clusters(seed: int) -> Tensor:
    """64 codes around four corners, (4, 2, 4, 4)."""
    corners = torch.tensor([[4.0, 4.0], [-4.0, 4.0], [4.0, -4.0], [-4.0, -4.0]])
    points = corners.repeat_interleave(16, 0) + codes(64, 2, seed=seed, scale=0.2)
    return points.view(4, 4, 4, 2).movedim(-1, 1)


def test_ema_codes_move_to_where_the_data_are() -> None:
    quantizer = EMAVQ(4, 2, decay=0.9)
    first = None
    for step in range(120):
        quantized, _, _ = quantizer(clusters(step))
        first = quantizer.codebook.clone() if first is None else first
    assert not torch.equal(first, quantizer.codebook)
    assert float((quantized - clusters(119)).square().mean()) < 0.2
    centres = quantizer.codebook.sign().tolist()
    assert len({tuple(c) for c in centres}) == 4


def test_ema_takes_its_first_codes_from_the_first_batch() -> None:
    quantizer = EMAVQ(8, 2)
    z = clusters(0) + 100
    quantized, _, _ = quantizer(z)
    assert float((quantized - z).abs().max()) < 10


def test_ema_revives_dead_codes() -> None:
    quantizer = EMAVQ(8, 2, decay=0.9)
    quantizer(clusters(0))
    quantizer.codebook[3:] = 1000.0
    quantizer.sums[3:] = 1000.0 * quantizer.counts[3:, None]
    used: set[int] = set()
    for step in range(100):
        _, ids, _ = quantizer(clusters(step))
        if step >= 80:
            used |= set(ids.flatten().tolist())
    assert float(quantizer.codebook.abs().max()) < 10
    assert len(used) >= 7


@pytest.mark.parametrize("started", [False, True])
def test_evaluation_changes_nothing(started: bool) -> None:
    quantizer = EMAVQ(8, 2)
    if started:
        quantizer(clusters(0))
    quantizer.eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    first = quantizer(clusters(1))[1]
    assert torch.equal(quantizer(clusters(1))[1], first)
    assert all(torch.equal(value, before[name]) for name, value in quantizer.state_dict().items())


@pytest.mark.parametrize("cosine", [False, True])
def test_ema_training_is_the_same_every_time(cosine: bool) -> None:
    def trained() -> dict[str, Tensor]:
        torch.manual_seed(0)
        quantizer = EMAVQ(8, 2, cosine=cosine)
        for step in range(30):
            quantizer(clusters(step))
        return quantizer.state_dict()

    one = trained()
    torch.randn(3)
    assert all(torch.equal(value, one[name]) for name, value in trained().items())


def test_half_precision_codes_are_quantized_in_full() -> None:
    z = codes(2, 3, 4, 4).bfloat16()
    quantized, ids, _ = FSQ((64, 64, 64))(z)
    assert quantized.dtype == torch.float32
    assert torch.equal(ids, FSQ((64, 64, 64))(z.float())[1])


def test_every_name_builds_what_its_recipe_says() -> None:
    sizes = {"fsq": (2, 12), "ema": (7, 64)}
    assert sizes.keys() == QUANTIZERS.keys()
    for name, (dim, size) in sizes.items():
        table = {"quantizer": name, "levels": [3, 4], "codebook_size": 64, "code_dim": 7}
        made = QUANTIZERS[name](apply(Recipe(), {"tokenizer": table}).tokenizer)
        assert (made.dim, made.codebook_size) == (dim, size)
    chosen = apply(Recipe(), {"tokenizer": {"distance": "cosine"}}).tokenizer
    assert QUANTIZERS["ema"](chosen).cosine


# Every id has a code, and that code has the id: whatever the shape of the quantizer.


@st.composite
def trained(draw: st.DrawFn) -> Quantizer:
    """Draw a quantizer of any kind, its codebook where some data put it."""
    kind = draw(st.sampled_from(["fsq", "ema", "cosine"]))
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    made: Quantizer
    if kind == "fsq":
        made = FSQ(tuple(draw(st.lists(st.integers(2, 9), min_size=1, max_size=4))))
    else:
        # In one dimension the unit sphere has only two points.
        made = EMAVQ(draw(st.integers(1, 40)), draw(st.integers(2, 8)), cosine=kind == "cosine")
    for step in range(3):
        made(codes(2, made.dim, 6, 6, seed=seed + step))
    return made.eval()


def some_ids(quantizer: Quantizer, seed: int) -> Tensor:
    return torch.randint(quantizer.codebook_size, (2, 4, 5), generator=torch.Generator().manual_seed(seed))


@settings(max_examples=80)
@given(quantizer=trained(), seed=st.integers(0, 2**16))
def test_ids_become_codes_and_the_same_ids_again(quantizer: Quantizer, seed: int) -> None:
    ids = some_ids(quantizer, seed)
    looked_up = quantizer.lookup(ids)
    assert looked_up.shape == (2, quantizer.dim, 4, 5)
    if isinstance(quantizer, FSQ):
        # Its inputs are squashed to [0, 1] first.
        looked_up = torch.logit((looked_up + 1) / 2, eps=1e-4)
    assert torch.equal(quantizer(looked_up)[1], ids)


@settings(max_examples=40)
@given(quantizer=trained(), seed=st.integers(0, 2**16))
def test_codes_become_ids_and_the_same_codes_again(quantizer: Quantizer, seed: int) -> None:
    quantized, ids, _ = quantizer(codes(2, quantizer.dim, 4, 5, seed=seed))
    assert 0 <= int(ids.min()) <= int(ids.max()) < quantizer.codebook_size
    assert torch.allclose(quantizer.lookup(ids), quantized, atol=1e-5)


def test_cosine_codes_lie_on_the_sphere_and_length_does_not_matter() -> None:
    torch.manual_seed(0)
    quantizer = EMAVQ(16, 3, cosine=True)
    for step in range(20):
        quantizer(codes(4, 3, 4, 4, seed=step))
    assert torch.allclose(quantizer.codebook.norm(dim=1), torch.ones(16))
    quantizer.eval()
    z = codes(4, 3, 4, 4, seed=77)
    assert torch.equal(quantizer(z)[1], quantizer(z * 5)[1])
    directions = torch.nn.functional.normalize(z, dim=1).movedim(1, -1) @ quantizer.codebook.T
    assert torch.equal(quantizer(z)[1], directions.argmax(-1))
