"""Quantizers: ids and codes name the same thing, gradients pass, codebooks move only in training."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.config.recipe import Recipe, apply
from framepred.tokenizer.quantizers import EMAVQ, FSQ, QUANTIZERS, LookupFree, Quantizer, ResidualVQ

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
    EMAVQ(32, 6, rotation=True),
    EMAVQ(32, 6, cosine=True, rotation=True),
    LookupFree(5, spherical=False, entropy_weight=0.1),
    LookupFree(5, spherical=True, entropy_weight=0.1),
    ResidualVQ(64, 6, depth=3),
    ResidualVQ(64, 6, depth=2, rotation=True),
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
    elif isinstance(quantizer, (FSQ, LookupFree)):
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


@settings(deadline=None, max_examples=30)
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


def test_ema_training_is_the_same_every_time() -> None:
    def trained() -> dict[str, Tensor]:
        torch.manual_seed(0)
        quantizer = EMAVQ(8, 2)
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
    sizes = {"fsq": (2, 12), "ema": (7, 64), "lfq": (6, 64), "bsq": (6, 64), "residual": (7, 64)}
    assert sizes.keys() == QUANTIZERS.keys()
    for name, (dim, size) in sizes.items():
        table = {"quantizer": name, "levels": [3, 4], "codebook_size": 64, "code_dim": 7, "residual_depth": 3}
        made = QUANTIZERS[name](apply(Recipe(), {"tokenizer": table}).tokenizer)
        assert (made.dim, made.codebook_size) == (dim, size)
    chosen = apply(Recipe(), {"tokenizer": {"distance": "cosine", "gradient": "rotation"}}).tokenizer
    assert QUANTIZERS["ema"](chosen).cosine
    assert QUANTIZERS["ema"](chosen).rotation
    assert QUANTIZERS["residual"](chosen).rotation


# Every id has a code, and that code has the id: whatever the shape of the quantizer.


@st.composite
def trained(draw: st.DrawFn) -> Quantizer:
    """Draw a quantizer of any kind, its codebook where some data put it."""
    kind = draw(st.sampled_from(["fsq", "ema", "cosine", "lfq", "bsq", "residual"]))
    seed = draw(st.integers(0, 2**16))
    torch.manual_seed(seed)
    made: Quantizer
    if kind == "fsq":
        made = FSQ(tuple(draw(st.lists(st.integers(2, 9), min_size=1, max_size=4))))
    elif kind in ("lfq", "bsq"):
        made = LookupFree(draw(st.integers(1, 18)), kind == "bsq", 0.1)
    elif kind == "residual":
        base, depth = draw(st.integers(2, 6)), draw(st.integers(1, 4))
        made = ResidualVQ(base**depth, draw(st.integers(2, 8)), depth)
    else:
        # In one dimension the unit sphere has only two points.
        made = EMAVQ(draw(st.integers(1, 40)), draw(st.integers(2, 8)), cosine=kind == "cosine")
    for step in range(3):
        made(codes(2, made.dim, 6, 6, seed=seed + step))
    return made.eval()


def some_ids(quantizer: Quantizer, seed: int) -> Tensor:
    return torch.randint(quantizer.codebook_size, (2, 4, 5), generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=80)
@given(quantizer=trained(), seed=st.integers(0, 2**16))
def test_ids_become_codes_and_the_same_ids_again(quantizer: Quantizer, seed: int) -> None:
    ids = some_ids(quantizer, seed)
    looked_up = quantizer.lookup(ids)
    assert looked_up.shape == (2, quantizer.dim, 4, 5)
    if isinstance(quantizer, ResidualVQ):
        # Greedy from coarse to fine, it may name a sum of codes otherwise, but never by a worse code.
        digits = [ids // quantizer.base**i % quantizer.base for i in range(len(quantizer.quantizers))]
        parts = [q.lookup(d) for q, d in zip(quantizer.quantizers, digits, strict=True)]
        assert torch.equal(torch.stack(parts).sum(0), looked_up)
        for part, digit, level in zip(parts, digits, quantizer.quantizers, strict=True):
            assert torch.equal(level(part)[1], digit)
        return
    if isinstance(quantizer, FSQ):
        # Its inputs are squashed to [0, 1] first.
        looked_up = torch.logit((looked_up + 1) / 2, eps=1e-4)
    assert torch.equal(quantizer(looked_up)[1], ids)


@settings(deadline=None, max_examples=40)
@given(quantizer=trained(), seed=st.integers(0, 2**16))
def test_codes_become_ids_and_the_same_codes_again(quantizer: Quantizer, seed: int) -> None:
    quantized, ids, _ = quantizer(codes(2, quantizer.dim, 4, 5, seed=seed))
    assert 0 <= int(ids.min()) <= int(ids.max()) < quantizer.codebook_size
    assert torch.allclose(quantizer.lookup(ids), quantized, atol=1e-5)


# Residual VQ.


def test_each_codebook_in_a_row_leaves_less_over() -> None:
    torch.manual_seed(0)
    errors = []
    for depth in (1, 2, 3):
        quantizer = ResidualVQ(8**depth, 4, depth)
        for step in range(60):
            quantizer(codes(8, 4, 8, 8, seed=step))
        z = codes(8, 4, 8, 8, seed=99)
        errors.append(float((quantizer.eval()(z)[0] - z).square().mean()))
    assert errors[0] > 1.4 * errors[1] > 2 * errors[2]


# Cosine and rotation.


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


@settings(deadline=None, max_examples=30)
@given(dim=st.integers(2, 8), seed=st.integers(0, 2**16))
def test_rotation_turns_the_gradient_by_the_angle_from_input_to_code(dim: int, seed: int) -> None:
    torch.manual_seed(seed)
    quantizer = EMAVQ(8, dim, rotation=True).eval()
    z = codes(1, dim, 3, 3, seed=seed).requires_grad_(True)
    quantized, _, _ = quantizer(z)
    push = codes(1, dim, 3, 3, seed=seed + 1)
    (gradient,) = torch.autograd.grad((quantized * push).sum(), z)
    rows, ends, pushes, grads = (t.detach().movedim(1, -1).reshape(-1, dim) for t in (z, quantized, push, gradient))
    stretch = ends.norm(dim=1) / rows.norm(dim=1)
    # What the map does to lengths and angles: |g| = stretch |p|, and g stands to z as p stands to the code.
    assert torch.allclose(grads.norm(dim=1), stretch * pushes.norm(dim=1), rtol=1e-3, atol=1e-5)
    to_code = (pushes * ends).sum(1) / ends.norm(dim=1)
    to_input = (grads * rows).sum(1) / rows.norm(dim=1)
    assert torch.allclose(to_input, stretch * to_code, rtol=1e-3, atol=1e-4)


def test_rotation_is_that_of_the_library_of_the_field() -> None:
    vq = pytest.importorskip("vector_quantize_pytorch.vector_quantize_pytorch")
    torch.manual_seed(0)
    quantizer = EMAVQ(16, 5, rotation=True).eval()
    z, push = codes(2, 5, 4, 4).requires_grad_(True), codes(2, 5, 4, 4, seed=1)
    quantized, ids, _ = quantizer(z)
    (mine,) = torch.autograd.grad((quantized * push).sum(), z)
    theirs = vq.rotate_to(z.movedim(1, -1), quantizer.codebook[ids]).movedim(-1, 1)
    assert torch.allclose(theirs, quantized, atol=1e-5)
    (expected,) = torch.autograd.grad((theirs * push).sum(), z)
    assert torch.allclose(mine, expected, atol=1e-4)


@pytest.mark.parametrize("spherical", [False, True])
def test_lookup_free_codes_are_those_of_the_library_of_the_field(spherical: bool) -> None:
    library = pytest.importorskip("vector_quantize_pytorch")
    mine = LookupFree(6, spherical, 0.1).eval()
    theirs = library.LFQ(dim=6, codebook_size=64, spherical=spherical).eval()
    z = codes(2, 6, 4, 4)
    quantized, ids, _ = mine(z)
    expected, expected_ids, _ = theirs(z)
    assert torch.allclose(quantized, expected, atol=1e-6)
    # They count the first channel highest.
    flipped = sum((ids // 2**i % 2) * 2 ** (5 - i) for i in range(6))
    assert torch.equal(flipped, expected_ids.long())


# Lookup-free.


def entropy_of(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(-1)


@settings(deadline=None, max_examples=20)
@given(bits=st.integers(1, 6), spherical=st.booleans(), seed=st.integers(0, 2**16))
def test_for_one_input_the_entropies_are_those_over_all_codes(bits: int, spherical: bool, seed: int) -> None:
    quantizer = LookupFree(bits, spherical, entropy_weight=1.0)
    z = codes(1, bits, 1, 1, seed=seed)
    placed = torch.nn.functional.normalize(z, dim=1) if spherical else z
    every = quantizer.lookup(torch.arange(2**bits).view(-1, 1, 1)).flatten(1)
    probabilities = torch.softmax(2 * placed.flatten() @ every.T / quantizer.scale**2, -1)
    # For one input the two entropies are one; the sure half is exact whatever the batch.
    logits = 4 * placed / quantizer.scale
    bit = torch.sigmoid(logits).flatten()
    per_bit = entropy_of(torch.stack([bit, 1 - bit], -1))
    assert per_bit.sum().item() == pytest.approx(entropy_of(probabilities).item(), abs=1e-4)
    assert quantizer._entropy_loss(placed).item() == pytest.approx(0, abs=1e-4)


def test_the_entropy_loss_sees_bits_that_say_the_same() -> None:
    """Each bit is balanced in both; only the second has more than two codes."""
    quantizer = LookupFree(4, False, entropy_weight=1.0)
    one = codes(8, 1, 8, 8, seed=1).sign() * 2
    alike, apart = one.expand(8, 4, 8, 8), codes(8, 4, 8, 8, seed=2).sign() * 2
    assert float(quantizer._entropy_loss(alike)) == pytest.approx(-math.log(2) / 4, abs=0.02)
    assert float(quantizer._entropy_loss(apart)) == pytest.approx(-math.log(2), abs=0.02)


def test_the_entropy_loss_wants_bits_sure_and_used_alike() -> None:
    quantizer = LookupFree(4, False, entropy_weight=1.0)
    signs = codes(8, 4, 8, 8, seed=0).sign()
    balanced, one_sided, unsure = signs * 2, torch.full_like(signs, 2.0), signs * 0.01
    values = [float(quantizer._entropy_loss(z)) for z in (balanced, one_sided, unsure)]
    assert values[0] < -0.6
    assert values[1] > -0.1
    assert values[2] > -0.1


def test_the_entropy_loss_revives_a_bit_that_never_changes() -> None:
    def shares(weight: float) -> Tensor:
        quantizer = LookupFree(4, False, entropy_weight=weight)
        shift = torch.full((1, 4, 1, 1), 2.0, requires_grad=True)
        optimizer = torch.optim.Adam([shift], lr=0.05)
        for step in range(150):
            _, _, loss = quantizer(codes(4, 4, 8, 8, seed=step) + shift)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        z = codes(4, 4, 8, 8, seed=999) + shift
        return (z > 0).float().mean((0, 2, 3))

    assert bool((shares(1.0) - 0.5).abs().max() < 0.15)
    assert bool((shares(0.0) - 0.5).abs().min() > 0.15)


def test_a_large_code_learns() -> None:
    quantizer = LookupFree(18, True, 0.1)
    z = codes(4, 18, 16, 16).requires_grad_(True)
    _, ids, loss = quantizer(z)
    loss.backward()
    assert int(ids.max()) > 2**16
    assert z.grad is not None
    assert bool((z.grad != 0).any())


@pytest.mark.parametrize(
    "build", [lambda: EMAVQ(8, 2, cosine=True), lambda: ResidualVQ(16, 2, 2)], ids=["cosine", "residual"]
)
def test_codebooks_are_trained_the_same_every_time(build: Callable[[], Quantizer]) -> None:
    def state() -> dict[str, Tensor]:
        torch.manual_seed(0)
        quantizer = build()
        for step in range(30):
            quantizer(clusters(step))
        return quantizer.state_dict()

    one = state()
    torch.randn(3)
    assert all(torch.equal(value, one[name]) for name, value in state().items())
