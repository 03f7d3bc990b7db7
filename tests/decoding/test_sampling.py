"""Sampling: noise that depends on its coordinates alone, and draws that follow the settings."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.decoding.sampling import Sampling, choose, gumbel_noise
from framepred.errors import FramepredError


def noise_at(seed: int, sample: int, frame: int, position: int, size: int = 16) -> Tensor:
    return gumbel_noise(seed, torch.tensor([sample]), frame, torch.tensor([position]), size)[0, 0]


@given(
    seed=st.integers(0, 2**63 - 1),
    frame=st.integers(0, 2_000_000),
    samples=st.lists(st.integers(0, 4096), min_size=1, max_size=4),
    positions=st.lists(st.integers(0, 5000), min_size=1, max_size=4),
)
def test_noise_depends_on_its_coordinates_alone(
    seed: int, frame: int, samples: list[int], positions: list[int]
) -> None:
    together = gumbel_noise(seed, torch.tensor(samples), frame, torch.tensor(positions), 16)
    for i, sample in enumerate(samples):
        for j, position in enumerate(positions):
            assert torch.equal(together[i, j], noise_at(seed, sample, frame, position))


def test_noise_does_not_depend_on_how_many_ids_are_asked_for() -> None:
    assert torch.equal(noise_at(1, 2, 3, 4, 100)[:16], noise_at(1, 2, 3, 4, 16))


_COORDINATE = st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 4096), st.integers(0, 10**6), st.integers(0, 5000))


@given(one=_COORDINATE, other=_COORDINATE, differing=st.integers(0, 3))
def test_noise_differs_where_any_coordinate_does(
    one: tuple[int, int, int, int], other: tuple[int, int, int, int], differing: int
) -> None:
    changed = list(one)
    changed[differing] = other[differing] if other[differing] != one[differing] else one[differing] ^ 1
    assert int((noise_at(*one) == noise_at(*changed)).sum()) <= 1


def test_neighbouring_coordinates_are_not_correlated() -> None:
    positions = torch.arange(64)
    base = gumbel_noise(0, torch.arange(4), 5, positions, 64)
    for other in (
        gumbel_noise(1, torch.arange(4), 5, positions, 64),
        gumbel_noise(0, torch.arange(1, 5), 5, positions, 64),
        gumbel_noise(0, torch.arange(4), 6, positions, 64),
        gumbel_noise(0, torch.arange(4), 5, positions + 1, 64),
        base.roll(1, -1),
        base.transpose(1, 2),
    ):
        assert abs(float(torch.corrcoef(torch.stack([base.flatten(), other.flatten()]))[0, 1])) < 0.03


def test_swapped_coordinates_do_not_collide() -> None:
    seen = {noise_at(a, b, c, d, 1).item() for a in range(4) for b in range(4) for c in range(4) for d in range(4)}
    assert len(seen) == 256


def test_noise_is_gumbel() -> None:
    values = gumbel_noise(7, torch.arange(8), 3, torch.arange(128), 256).double().flatten()
    assert bool(values.isfinite().all())
    assert float(values.mean()) == pytest.approx(0.5772, abs=0.01)
    assert float(values.var()) == pytest.approx(math.pi**2 / 6, rel=0.02)
    for x in (-1.0, 0.0, 1.0, 3.0):
        assert float((values <= x).double().mean()) == pytest.approx(math.exp(-math.exp(-x)), abs=0.005)


def draws(logits: Tensor, sampling: Sampling, count: int = 40_000) -> Tensor:
    noise = gumbel_noise(sampling.seed, torch.arange(count), 0, torch.zeros(1, dtype=torch.int64), len(logits))
    return choose(logits.expand(count, 1, -1), noise, sampling)[:, 0]


LOGITS = torch.tensor([2.0, 1.5, 1.0, 0.0, -0.5, -3.0, 0.9, -20.0])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    counts = torch.bincount(draws(LOGITS, Sampling(temperature)), minlength=8).double()
    expected = (LOGITS.double() / temperature).softmax(0) * counts.sum()
    common = expected > 5
    chi_square = ((counts - expected).square() / expected)[common].sum()
    # 7 degrees of freedom: 29.9 is exceeded once in ten thousand; the draws are the same every time.
    assert float(chi_square) < 29.9
    assert float(counts[~common].sum()) <= 20


@given(
    logits=st.lists(st.floats(-30, 30, width=32), min_size=2, max_size=30, unique=True),
    sampling=st.sampled_from(
        [
            Sampling(0),
            Sampling(0, 3, 0.5),
            Sampling(1, top_k=1),
            Sampling(50, top_k=1),
            Sampling(100, top_k=1, top_p=0.5),
            Sampling(1e-40, top_k=1),
            Sampling(1e-40),
            Sampling(1, top_p=1e-6),
            Sampling(1e-6),
        ]
    ),
    seed=st.integers(0, 2**40),
)
def test_greedy_settings_take_the_likeliest(logits: list[float], sampling: Sampling, seed: int) -> None:
    row = torch.tensor(logits)
    noise = noise_at(seed, 0, 0, 0, len(logits))
    gap = row.topk(2).values
    if sampling.temperature == 1e-6 and float(gap[0] - gap[1]) < 1e-3:
        return
    assert int(choose(row, noise, sampling)) == int(row.argmax())


@pytest.mark.parametrize("temperature", [0, 1e-40, 1.0, 100.0])
def test_greedy_needs_no_noise(temperature: float) -> None:
    assert int(choose(LOGITS, None, Sampling(temperature, top_k=1))) == 0
    assert Sampling(temperature, top_k=1).greedy
    assert Sampling(temperature, top_k=2).greedy is (temperature == 0)


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_top_k_draws_all_of_the_k_likeliest_and_no_other(top_k: int) -> None:
    kept = set(LOGITS.topk(top_k).indices.tolist())
    assert set(draws(LOGITS, Sampling(1.0, top_k=top_k)).tolist()) == kept


@pytest.mark.parametrize("top_k", [1, 2, 3, 5])
def test_of_equal_logits_top_k_keeps_the_first(top_k: int) -> None:
    logits = torch.tensor([0.0, 2.0, 1.0, 1.0, 0.0, 1.0, 1.0, -1.0])
    kept = [1, 2, 3, 5, 6, 0, 4, 7][:top_k]
    assert set(draws(logits, Sampling(1.0, top_k=top_k)).tolist()) == set(kept)


def test_of_equal_logits_top_p_keeps_the_first() -> None:
    assert set(draws(torch.zeros(8), Sampling(1.0, top_p=0.3)).tolist()) == {0, 1, 2}


@pytest.mark.parametrize("top_k", [0, 8, 1000])
def test_top_k_of_all_changes_nothing(top_k: int) -> None:
    assert torch.equal(draws(LOGITS, Sampling(1.0, top_k=top_k)), draws(LOGITS, Sampling(1.0)))


@pytest.mark.parametrize("top_p", [0.05, 0.4, 0.5, 0.8, 0.95])
def test_top_p_keeps_the_smallest_set_of_that_mass(top_p: float) -> None:
    shares, order = LOGITS.double().softmax(0).sort(descending=True)
    size = int((shares.cumsum(0) < top_p).sum()) + 1
    assert float(shares[:size].sum()) >= top_p > float(shares[: size - 1].sum())
    assert set(draws(LOGITS, Sampling(1.0, top_p=top_p)).tolist()) == set(order[:size].tolist())


def test_what_is_kept_keeps_its_proportions() -> None:
    counts = torch.bincount(draws(LOGITS, Sampling(1.0, top_k=2)), minlength=8)
    expected = float(LOGITS[:2].softmax(0)[0])
    assert float(counts[0] / counts.sum()) == pytest.approx(expected, abs=0.01)


def likeliest(logits: Tensor, temperature: float, top_k: int) -> Tensor:
    """Logits (B, V) → by temperature, in float64; -inf where they are not among the `top_k`."""
    kept = logits / temperature
    if 0 < top_k < kept.shape[1]:
        kept = kept.masked_fill(kept < kept.topk(top_k).values[:, -1:], -torch.inf)
    return kept.double()


@given(
    seed=st.integers(0, 2**32),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1.0),
    temperature=st.floats(0.1, 10.0),
)
def test_a_dropped_token_is_never_drawn(seed: int, top_k: int, top_p: float, temperature: float) -> None:
    logits = torch.randn(20, 10, generator=torch.Generator().manual_seed(seed)) * 3
    noise = gumbel_noise(seed, torch.zeros(1, dtype=torch.int64), 0, torch.arange(20), 10)[0]
    chosen = choose(logits, noise, Sampling(temperature, top_k, top_p))
    rank = (logits > logits.gather(1, chosen[:, None])).sum(1)
    assert not top_k or int(rank.max()) < top_k
    shares = likeliest(logits, temperature, top_k).softmax(-1)
    likelier = (shares * (shares > shares.gather(1, chosen[:, None]))).sum(1)
    assert float(likelier.max()) < top_p + 1e-6


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": -0.1}, "temperature -0.1 is not allowed; it must be 0 (greedy) to 100"),
        ({"temperature": float("nan")}, "temperature nan"),
        ({"temperature": float("inf")}, "temperature inf"),
        ({"top_k": -1}, "top_k -1 is not allowed; it must be 0 (all) or more"),
        ({"top_p": 0.0}, "top_p 0.0 is not allowed; it must be above 0, at most 1"),
        ({"top_p": 1.1}, "top_p 1.1"),
        ({"seed": -1}, "seed -1 is not allowed; it must be 0 to 2^63 - 1"),
        ({"seed": 2**63}, "seed 9223372036854775808"),
    ],
)
def test_setting_that_is_not_allowed_is_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        Sampling(**values)  # type: ignore[arg-type]
    assert words in str(caught.value)
