"""The flat sequence: frames and actions ⇄ ids, nothing lost, every id in its range."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.config.recipe import Scan
from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace, fit_action_space
from framepred.sequence.layout import SequenceLayout, scan_order
from framepred.sequence.vocabulary import Vocabulary


@st.composite
def action_spaces(draw: st.DrawFn) -> ActionSpace | None:
    kind = draw(st.sampled_from(["none", "discrete", "continuous"]))
    if kind == "none":
        return None
    if kind == "discrete":
        return ActionSpace("discrete", ("a",), count=draw(st.integers(1, 20)))
    edge = st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=6, unique=True).map(sorted).map(tuple)
    edges = tuple(draw(st.lists(edge, min_size=1, max_size=4)))
    return ActionSpace("continuous", tuple(f"d{i}" for i in range(len(edges))), edges=edges)


@st.composite
def layouts(draw: st.DrawFn) -> SequenceLayout:
    space = draw(action_spaces())
    vocabulary = Vocabulary(draw(st.integers(0, 50)), draw(st.integers(1, 300)), space.size if space else 0)
    grid = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    scan = draw(st.sampled_from(get_args(Scan)))
    cells = draw(st.booleans())
    if cells:
        vocabulary = replace(vocabulary, visual_size=draw(st.integers(1, 20)) * grid[0] * grid[1])
    if not draw(st.booleans()):
        return SequenceLayout(vocabulary, grid, space, scan=scan, cells=cells)
    keys = draw(st.integers(1, 300)), (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    return SequenceLayout(replace(vocabulary, context_size=keys[0]), grid, space, keys[1], scan, cells)


def random_tokens(layout: SequenceLayout, frames: int, generator: torch.Generator) -> Tensor:
    """Return tokens of frames as a tokenizer gives them: (T, h, w), or (T, K + N) where there are keys."""
    own = torch.randint(0, layout.codes, (frames, layout.frame_tokens), generator=generator)
    most = max(1, layout.vocabulary.context_size)
    keys = torch.randint(0, most, (frames, layout.context_tokens), generator=generator)
    return layout.rows(torch.cat([keys, own], 1))


def random_actions(space: ActionSpace | None, count: int, generator: torch.Generator) -> Tensor | None:
    if space is None:
        return None
    if space.kind == "discrete":
        return torch.randint(0, space.count, (count,), generator=generator)
    return torch.randn(count, len(space.edges), generator=generator) * 100


@given(layout=layouts(), frames=st.integers(1, 6), spare=st.booleans(), seed=st.integers(0, 2**32))
def test_unpack_undoes_pack(layout: SequenceLayout, frames: int, spare: bool, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = random_tokens(layout, frames, generator)
    count = frames if spare else frames - 1
    actions = layout.action_ids(random_actions(layout.actions, count, generator), count)
    ids = layout.pack(tokens, actions)
    assert ids.shape == (frames * (layout.context_tokens + layout.frame_tokens) + count * layout.action_slots,)
    keys, grids, got_actions = layout.unpack(ids)
    assert torch.equal(keys, tokens.flatten(1)[:, : layout.context_tokens])
    assert grids.shape == (frames, *layout.grid)
    assert torch.equal(grids.flatten(1), layout.steps(tokens))
    assert torch.equal(got_actions[:count], actions)


@given(layout=layouts(), frames=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_every_id_is_legal_in_its_slot(layout: SequenceLayout, frames: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    actions = layout.action_ids(random_actions(layout.actions, frames, generator), frames)
    ids = layout.pack(random_tokens(layout, frames, generator), actions)
    assert len(ids) == frames * layout.stride
    for step in ids.view(frames, layout.stride):
        for slot, value in enumerate(step.tolist()):
            start, stop = layout.legal(slot)
            assert start <= value < stop


@given(layout=layouts())
def test_ranges_partition_the_vocabulary(layout: SequenceLayout) -> None:
    vocabulary = layout.vocabulary
    owners = [0] * vocabulary.size
    ranges = [(0, vocabulary.text_size), (vocabulary.no_action, vocabulary.no_action + 1)]
    own = range(layout.context_tokens, layout.row_tokens if layout.cells else layout.context_tokens + 1)
    ranges += [layout.legal(slot) for slot in {0, *own, *range(layout.row_tokens, layout.stride)}]
    ranges += [(marker, marker + 1) for marker in (vocabulary.markers if vocabulary.text_size else ())]
    for start, stop in ranges:
        for i in range(start, stop):
            owners[i] += 1
    assert owners == [1] * vocabulary.size


@given(layout=layouts())
def test_layout_survives_json(layout: SequenceLayout) -> None:
    assert SequenceLayout.from_json(json.loads(json.dumps(layout.to_json()))) == layout


def test_order_is_frame_then_action_and_a_frame_is_in_raster_order() -> None:
    layout = SequenceLayout(Vocabulary(10, 100, 4), (2, 3), ActionSpace("discrete", ("a",), count=4))
    tokens = torch.arange(12).view(2, 2, 3)
    ids = layout.pack(tokens, layout.action_ids(torch.tensor([3, 0]), 2))
    assert ids.tolist() == [10, 11, 12, 13, 14, 15, 113, 16, 17, 18, 19, 20, 21, 110]


def test_an_action_that_is_not_given_is_no_action() -> None:
    layout = SequenceLayout(Vocabulary(0, 8, 4), (1, 2), ActionSpace("discrete", ("a",), count=4))
    none = layout.vocabulary.no_action
    assert layout.action_ids(None, 3).tolist() == [[none]] * 3
    assert layout.action_ids(torch.tensor([1]), 3).tolist() == [[9], [none], [none]]
    assert not any(start <= none < stop for start, stop in (layout.legal(s) for s in range(layout.stride)))


def test_a_half_frame_cannot_be_unpacked() -> None:
    layout = SequenceLayout(Vocabulary(0, 8, 4), (2, 2), ActionSpace("discrete", ("a",), count=4))
    with pytest.raises(ValueError, match="7 ids are not whole frames of 5"):
        layout.unpack(torch.zeros(7, dtype=torch.int64))
    keyed = replace(layout, context_grid=(2, 2))
    with pytest.raises(ValueError, match="13 ids are not whole frames of 9"):
        keyed.unpack(torch.zeros(13, dtype=torch.int64))


def test_before_each_frame_stands_its_key() -> None:
    layout = SequenceLayout(Vocabulary(10, 4, 2, context_size=5), (1, 2), ActionSpace("discrete", ("a",), 2), (1, 3))
    rows = torch.tensor([[0, 1, 2, 3, 0], [4, 3, 2, 1, 2]])
    actions = layout.action_ids(torch.tensor([1, 0]), 2)
    assert layout.pack(rows, actions).tolist() == [14, 15, 16, 13, 10, 20, 18, 17, 16, 11, 12, 19]
    assert layout.pack(rows[1:], actions[1:]).tolist() == [18, 17, 16, 11, 12, 19]
    assert layout.context_ids(rows[:, :3]).tolist() == [[14, 15, 16], [18, 17, 16]]
    assert layout.to_json()["layout"]["order"] == ["context", "frame", "action"]


def test_a_layout_of_another_order_is_refused() -> None:
    value = SequenceLayout(Vocabulary(10, 4, 0, context_size=5), (1, 2), None, (1, 3)).to_json()
    value["layout"]["order"] = ["frame", "action"]
    with pytest.raises(ValueError, match=r"layout order \['frame', 'action'\] is not known: train the run again"):
        SequenceLayout.from_json(value)


def test_vocabulary_with_a_gap_is_refused() -> None:
    value = Vocabulary(3, 8, 2).to_json()
    value["action"] = [12, 14]
    with pytest.raises(ValueError, match="not contiguous"):
        Vocabulary.from_json(value)


@given(
    values=st.lists(st.floats(-1000, 1000, width=32), min_size=2, max_size=60),
    bins=st.integers(2, 40),
    probes=st.lists(st.floats(-2000, 2000, width=32), min_size=2, max_size=20),
)
def test_binning_never_reorders(values: list[float], bins: int, probes: list[float]) -> None:
    space = fit_action_space([torch.tensor(values)[:, None]], ("x",), bins)
    # No more than is asked for, but for the values that have bins of their own.
    common = {v for v in values if values.count(v) * 100 >= len(values)}
    assert space.size <= bins + 2 * len(common)
    ids = space.encode(torch.tensor(sorted(probes))[:, None])[:, 0]
    assert bool((ids.diff() >= 0).all())
    assert 0 <= int(ids.min()) <= int(ids.max()) < space.size


def test_bins_hold_equal_mass_in_every_dimension() -> None:
    values = torch.stack([torch.randn(4000).exp(), torch.rand(4000) * 9 - 4], 1)
    space = fit_action_space([values[:1000], values[1000:]], ("speed", "turn"), 8)
    assert (space.slots, space.size) == (2, 16)
    ids = space.encode(values)
    assert torch.bincount(ids[:, 0], minlength=16)[:8].min() > 450
    assert torch.bincount(ids[:, 1], minlength=16)[8:].min() > 450


def test_actions_survive_json_to_the_last_bit() -> None:
    values = torch.randn(500, 3)
    space = fit_action_space([values], ("a", "b", "c"), 32)
    again = ActionSpace.from_json(json.loads(json.dumps(space.to_json())))
    assert torch.equal(again.encode(values), space.encode(values))


def test_discrete_space_has_the_ids_that_occur() -> None:
    space = fit_action_space([torch.tensor([0, 2]), torch.tensor([], dtype=torch.int64), torch.tensor([5])], ("a",), 32)
    assert (space.kind, space.count, space.slots) == ("discrete", 6, 1)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (torch.tensor([0, 4]), "action id 4 is not allowed; the model knows ids 0 to 3"),
        (torch.tensor([0, -1]), "action id -1 is not allowed; the model knows ids 0 to 3"),
        (torch.tensor([[0.5], [1.0]]), "these are continuous, the model takes one integer column: ids 0 to 3"),
        (torch.tensor([0.5, 1.0]), "these are continuous"),
    ],
)
def test_discrete_action_that_is_not_known_is_named(actions: Tensor, words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        ActionSpace("discrete", ("a",), count=4).encode(actions, "file.csv")
    assert str(caught.value).startswith("file.csv: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (torch.zeros(3, 1), "1 columns, the model takes 2: speed, turn"),
        (torch.zeros(3), "1 columns, the model takes 2: speed, turn"),
        (torch.tensor([[0.0, float("nan")]]), "a value is not finite"),
        (torch.tensor([[float("inf"), 0.0]]), "a value is not finite"),
    ],
)
def test_continuous_action_that_does_not_fit_is_refused(actions: Tensor, words: str) -> None:
    space = ActionSpace("continuous", ("speed", "turn"), edges=((0.0,), (-1.0, 1.0)))
    with pytest.raises(FramepredError) as caught:
        space.encode(actions, "file.csv")
    assert words in str(caught.value)


def test_a_frame_is_laid_down_in_raster_order() -> None:
    layout = SequenceLayout(Vocabulary(0, 12, 0), (2, 3))
    ids = layout.pack(torch.arange(12).view(2, 2, 3), torch.empty(2, 0, dtype=torch.int64))
    assert ids.tolist() == list(range(12))


def test_an_interlaced_frame_is_four_grids() -> None:
    layout = SequenceLayout(Vocabulary(0, 16, 0), (4, 4), scan="interlaced")
    ids = layout.pack(torch.arange(16).view(1, 4, 4), torch.empty(1, 0, dtype=torch.int64))
    assert ids.tolist() == [0, 2, 8, 10, 5, 7, 13, 15, 1, 3, 9, 11, 4, 6, 12, 14]


@given(grid=st.tuples(st.integers(1, 9), st.integers(1, 9)), scan=st.sampled_from(get_args(Scan)))
def test_a_scan_comes_by_every_place_once(grid: tuple[int, int], scan: Scan) -> None:
    layout = SequenceLayout(Vocabulary(0, 100, 0), grid, scan=scan)
    values = torch.randn(2, layout.frame_tokens, 3)
    assert sorted(scan_order(scan, grid).tolist()) == list(range(layout.frame_tokens))
    assert torch.equal(layout.unscanned(layout.scanned(values)), values)


def test_an_unknown_scan_is_refused() -> None:
    value = SequenceLayout(Vocabulary(0, 8, 0), (1, 2)).to_json()
    value["layout"]["scan"] = "spiral"
    with pytest.raises(ValueError, match="layout scan 'spiral' is not known; it is one of raster, interlaced"):
        SequenceLayout.from_json(value)
