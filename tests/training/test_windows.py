"""Training windows: whole, from one episode, split without overlap, drawn by the step alone."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokens.store import TokenEpisode
from framepred.training.windows import Windows, group_weights, split_episodes, step_generator

LAYOUT = SequenceLayout(Vocabulary(0, 4096, 4), (1, 2), ActionSpace("discrete", ("a",), count=4))


def episode(number: int, length: int, actions: bool = True) -> TokenEpisode:
    """Return an episode whose tokens name it and the frame: (number, frame)."""
    tokens = torch.stack([torch.full((length,), number), torch.arange(length)], 1).view(length, 1, 2).int()
    return TokenEpisode(f"e{number}", "s", 10.0, tokens, torch.arange(length) % 4 if actions else None)


def build(lengths: list[int], window: int = 4, groups: list[str] | None = None) -> Windows:
    episodes = [episode(i, length, i % 2 == 0) for i, length in enumerate(lengths)]
    return Windows.build(episodes, groups or ["s"] * len(lengths), LAYOUT, window, 0.3)


def check(windows: Windows, lengths: list[int], ids: Tensor, real: Tensor) -> None:
    """Check that every window is a run of frames of one episode, with that episode's actions."""
    kept = [n for n, length in enumerate(lengths) if length >= 2]
    for row, mask in zip(ids.view(len(ids), windows.window, 3), real, strict=True):
        number = int(row[0, 0])
        length = lengths[number]
        assert number in kept
        assert int(mask.sum()) == min(windows.window, length)
        assert bool(mask[: int(mask.sum())].all())
        first = int(row[0, 1])
        expected = [min(first + t, length - 1) for t in range(windows.window)]
        assert row[:, 0].tolist() == [number] * windows.window
        assert row[:, 1].tolist() == expected
        actions = [4096 + t % 4 if number % 2 == 0 else LAYOUT.vocabulary.no_action for t in expected]
        assert row[:, 2].tolist() == actions


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda x: max(x) > 1),
    window=st.integers(2, 9),
    step=st.integers(0, 99),
)
def test_every_window_lies_within_one_episode(lengths: list[int], window: int, step: int) -> None:
    windows = build(lengths, window)
    assert len(windows) == sum(length >= 2 for length in lengths)
    check(windows, lengths, *windows.batch(16, step_generator(0, step)))
    check(windows, lengths, *windows.evenly(16))


CONTINUOUS = ActionSpace("continuous", ("a", "b"), edges=((-0.5, 0.5), (0.0,)))


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(2, 12), min_size=1, max_size=5),
    lacking=st.lists(st.sampled_from([0, 1, 99]), min_size=5, max_size=5),
    space=st.sampled_from([LAYOUT.actions, CONTINUOUS, None]),
    window=st.integers(2, 9),
    step=st.integers(0, 99),
)
def test_windows_are_cut_out_of_episodes_laid_out_whole(
    lengths: list[int], lacking: list[int], space: ActionSpace | None, window: int, step: int
) -> None:
    layout = SequenceLayout(Vocabulary(0, 4096, space.size if space else 0), (1, 2), space)
    episodes = []
    for (number, length), fewer in zip(enumerate(lengths), lacking, strict=False):
        # Of all frames, of all but the last, or of none: as a store has them.
        wide = torch.randn(length, 2, generator=step_generator(number)) if space is CONTINUOUS else None
        actions = None if fewer > 1 else (torch.arange(length) % 4 if wide is None else wide)[: length - fewer]
        episodes.append(replace(episode(number, length, False), actions=actions))
    windows = Windows.build(episodes, ["s"] * len(lengths), layout, window, 0.3)
    places = windows.draw(16, step_generator(0, step))
    for ids, e, offset in zip(windows.gather(*places)[0], *map(Tensor.tolist, places), strict=True):
        whole = layout.pack(episodes[e].tokens, layout.action_ids(episodes[e].actions, lengths[e]))
        frames = [min(offset + t, lengths[e] - 1) for t in range(window)]
        assert torch.equal(ids, whole.view(lengths[e], layout.stride)[frames].flatten())


def test_an_action_that_is_not_allowed_is_refused_before_it_is_drawn() -> None:
    wrong = replace(episode(1, 9), actions=torch.arange(9))
    with pytest.raises(FramepredError, match="e1: action id 8 is not allowed"):
        Windows.build([episode(0, 9), wrong], ["s"] * 2, LAYOUT, 4, 0.3)


def test_batches_are_a_function_of_seed_and_step() -> None:
    windows = build([30, 20, 5])
    one = windows.batch(8, step_generator(0, 2, 7))
    torch.rand(5)
    again = windows.batch(8, step_generator(0, 2, 7))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    for other in ((0, 2, 8), (1, 2, 7), (0, 3, 7)):
        assert not torch.equal(one[0], windows.batch(8, step_generator(*other))[0])


def test_every_place_is_drawn_also_the_last() -> None:
    windows = build([9, 6])
    ids, _ = windows.batch(2000, step_generator(0))
    places = {(int(row[0]), int(row[1])) for row in ids}
    assert places == {(0, t) for t in range(6)} | {(1, t) for t in range(3)}


def test_frames_of_one_source_are_drawn_alike() -> None:
    windows = build([40, 10], window=2)
    ids, _ = windows.batch(4000, step_generator(0))
    assert float((ids[:, 0] == 0).float().mean()) == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("power", "ratio"), [(1.0, 100), (0.5, 10), (0.3, 100**0.3), (0.0, 1)])
def test_sources_are_drawn_by_their_frames_to_the_power(power: float, ratio: float) -> None:
    weights = group_weights(["big", "big", "small"], [300, 100, 4], power)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights[0] / weights[1]) == pytest.approx(3)
    assert float(weights[:2].sum() / weights[2]) == pytest.approx(ratio)


def test_spread_covers_all_frames_and_never_changes() -> None:
    windows = build([16, 16, 8], window=4)
    ids, real = windows.evenly(40)
    assert torch.equal(ids, windows.evenly(40)[0])
    assert bool(real.all())
    seen = {(int(n), int(t)) for row in ids.view(40, 4, 3) for n, t, _ in row}
    assert seen == {(n, t) for n, length in enumerate([16, 16, 8]) for t in range(length)}


def test_an_episode_of_one_frame_teaches_nothing() -> None:
    windows = build([1, 1])
    assert len(windows) == 0
    assert windows.tokens == windows.actions == ()


names = st.lists(st.text("abcdef0123456789", min_size=1, max_size=6), min_size=1, max_size=40, unique=True)


@given(names=names, fraction=st.floats(0, 0.9))
def test_split_shares_no_episode_and_loses_none(names: list[str], fraction: float) -> None:
    train, held = split_episodes(names, fraction)
    assert sorted(train + held) == list(range(len(names)))
    assert train
    assert bool(held) is (fraction > 0 and len(names) > 1)
    if held:
        assert len(held) == min(len(names) - 1, max(1, round(len(names) * fraction)))


@given(names=names, fraction=st.floats(0, 0.9), seed=st.randoms(use_true_random=False))
def test_split_does_not_depend_on_the_order(names: list[str], fraction: float, seed: object) -> None:
    shuffled = list(names)
    seed.shuffle(shuffled)  # type: ignore[attr-defined]
    held = {names[i] for i in split_episodes(names, fraction)[1]}
    assert {shuffled[i] for i in split_episodes(shuffled, fraction)[1]} == held


def test_one_episode_is_trained_on() -> None:
    assert split_episodes(["only"], 0.5) == ([0], [])
