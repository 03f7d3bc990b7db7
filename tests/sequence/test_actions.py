"""Bins of continuous actions: order is kept, what is common is told apart, at any magnitude."""

import json

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.sequence.actions import ActionSpace, fit_action_space, fit_bins

_ANY = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def columns(draw: st.DrawFn) -> Tensor:
    """A column of float32 of any magnitude, some values of which are repeated often."""
    values = draw(st.lists(_ANY, min_size=1, max_size=30, unique=True))
    counts = draw(st.lists(st.sampled_from([1, 1, 2, 7, 40, 900]), min_size=len(values), max_size=len(values)))
    column = torch.tensor(values).repeat_interleave(torch.tensor(counts))
    return column[torch.randperm(len(column), generator=torch.Generator().manual_seed(len(column)))]


@settings(max_examples=200)
@given(parts=st.lists(columns(), min_size=1, max_size=3), bins=st.integers(2, 40))
@example(parts=[torch.tensor([0.0] * 930 + [-1.0] * 20 + [1.0] * 50)], bins=2)
@example(parts=[torch.tensor([1e-45, 0.0, -1e-45, 3.4e38, -3.4e38])], bins=2)
def test_encode_then_decode_keeps_order_and_tells_apart_what_makes_up_a_hundredth(
    parts: list[Tensor], bins: int
) -> None:
    rows = max(map(len, parts))
    table = torch.stack([part.repeat(-(-rows // len(part)))[:rows] for part in parts], 1)
    space = fit_action_space([table[: rows // 2], table[rows // 2 :]], tuple("abc"[: len(parts)]), bins)
    again = ActionSpace.from_json(json.loads(json.dumps(space.to_json(), allow_nan=False)))
    ids = again.encode(table)
    decoded = again.decode(ids)
    assert torch.equal(ids, space.encode(table))
    assert decoded.dtype == torch.float32
    assert bool(decoded.isfinite().all())
    for column, back in zip(table.T, decoded.T, strict=True):
        order = column.argsort()
        assert bool((back[order][1:] >= back[order][:-1]).all())
        values, counts = column.unique(return_counts=True)
        common = values[counts * 100 >= rows]
        given_back = [back[column == value] for value in common]
        # A value with a bin of its own comes back as it was.
        assert all(bool((made == value).all()) for made, value in zip(given_back, common, strict=True))


@pytest.mark.parametrize("scale", [1e-44, 1e-7, 1.0, 1e30])
def test_rare_values_on_both_sides_of_a_spike_have_bins_of_their_own(scale: float) -> None:
    column = torch.zeros(10_000)
    # Too rare to be told apart for their number alone: 0.1 % and 0.3 %.
    column[[17 * i for i in range(10)]], column[[31 * i + 5 for i in range(30)]] = -1.0, 1.0
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    space = fit_action_space([torch.stack([noise, column], 1) * scale], ("noise", "steer"), 8)
    probe = torch.tensor([[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]]) * scale
    ids = space.encode(probe)
    assert ids[:, 1].diff().tolist() == [1, 1]
    assert torch.allclose(space.decode(ids)[:, 1], probe[:, 1], rtol=1e-3, atol=0)


def test_a_value_that_is_often_there_does_not_eat_the_bins_of_the_others() -> None:
    generator = torch.Generator().manual_seed(1)
    column = torch.where(torch.rand(20_000, generator=generator) < 0.9, 0.0, torch.randn(20_000, generator=generator))
    edges, centres = fit_bins(column, 16)
    ids = torch.bucketize(column, torch.tensor(edges))
    counts = torch.bincount(ids, minlength=len(centres))
    spike = int(counts.argmax())
    assert (len(centres), centres[spike]) == (18, 0.0) or (len(centres), centres[spike]) == (17, 0.0)
    others = torch.cat([counts[:spike], counts[spike + 1 :]])
    # 2,000 in 16 bins: 125 each, but for the bin that the spike cuts in two.
    assert int((others > 100).sum()) >= 15


def test_where_nothing_is_common_there_are_as_many_bins_as_asked_for() -> None:
    edges, centres = fit_bins(torch.rand(5000, generator=torch.Generator().manual_seed(2)), 8)
    assert (len(edges), len(centres)) == (7, 8)
    assert list(edges) == pytest.approx([i / 8 for i in range(1, 8)], abs=0.02)


def test_a_space_without_centres_decodes_to_the_middles_of_its_bins() -> None:
    space = ActionSpace("continuous", ("a", "b", "c"), edges=((0.0,), (-1.0, 1.0), ()))
    values = torch.tensor([[-3.0, -2.0, 5.0], [0.5, 0.0, -5.0], [9.0, 7.0, 0.0]])
    decoded = space.decode(space.encode(values))
    assert decoded.tolist() == [[-0.5, -2.0, 0.0], [0.5, 0.0, 0.0], [0.5, 2.0, 0.0]]
    assert torch.equal(space.encode(decoded), space.encode(values))


def test_discrete_ids_come_back_as_they_were() -> None:
    space = ActionSpace("discrete", ("a",), count=4)
    assert space.decode(space.encode(torch.tensor([3, 0, 2]))).tolist() == [3, 0, 2]
