"""Spliced events stand where they are said to stand, and nothing else is touched."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from splicing import Footage, area_under_roc, change_action, cut, reverse, teleport


def numbered(frames: int, first: int = 0) -> Footage:
    """Return footage whose frame t and action t are the number first + t."""
    count = torch.arange(first, first + frames)
    return Footage.plain(count[:, None], count)


def shown(footage: Footage) -> list[int]:
    return footage.frames[:, 0].tolist()


def found(footage: Footage) -> dict[int, str]:
    return {t: event for t, event in enumerate(footage.events) if event}


def test_plain_footage_takes_either_number_of_actions() -> None:
    frames = torch.zeros(5, 2)
    assert Footage.plain(frames, torch.arange(5)).actions.tolist() == [0, 1, 2, 3, 4]
    assert Footage.plain(frames, torch.arange(4)).actions.tolist() == [0, 1, 2, 3, 3]
    assert found(Footage.plain(frames, torch.arange(4))) == {}


@given(at=st.integers(1, 9))
def test_a_cut_goes_on_with_the_other_footage_and_its_actions(at: int) -> None:
    spliced = cut(numbered(10), numbered(12, 100), at)
    assert shown(spliced) == [*range(at), *range(100 + at, 112)]
    assert spliced.actions.tolist() == shown(spliced)
    assert found(spliced) == {at: "cut"}


@given(at=st.integers(1, 14), to=st.integers(0, 19))
def test_a_teleport_goes_on_elsewhere_in_the_same_footage(at: int, to: int) -> None:
    spliced = teleport(numbered(20), at, to)
    assert shown(spliced) == [*range(at), *range(to, 20)]
    assert spliced.actions.tolist() == shown(spliced)
    assert found(spliced) == {at: "teleport"}


@given(at=st.integers(1, 10), length=st.integers(2, 10))
def test_a_reversed_stretch_is_the_same_frames_with_the_actions_left_alone(at: int, length: int) -> None:
    footage = numbered(20)
    spliced = reverse(footage, at, length)
    assert shown(spliced) == [*range(at), *reversed(range(at, at + length)), *range(at + length, 20)]
    assert torch.equal(spliced.actions, footage.actions)
    # The frame after the stretch follows from its last, which it never did.
    assert found(spliced) == dict.fromkeys(range(at, min(20, at + length + 1)), "reverse")
    assert shown(reverse(spliced, at, length)) == shown(footage)


def test_a_changed_action_is_the_one_that_led_to_the_frame() -> None:
    footage = numbered(10)
    spliced = change_action(footage, 4, 77)
    assert spliced.actions.tolist() == [0, 1, 2, 77, *range(4, 10)]
    assert torch.equal(spliced.frames, footage.frames)
    assert found(spliced) == {4: "action"}
    assert footage.actions.tolist() == list(range(10)), "the footage given is never written to"


def test_several_events_in_one_piece_of_footage() -> None:
    spliced = change_action(cut(cut(numbered(12), numbered(12, 100), 3), numbered(12), 6), 9, 5)
    assert shown(spliced) == [0, 1, 2, 103, 104, 105, *range(6, 12)]
    assert found(spliced) == {3: "cut", 6: "cut", 9: "action"}


def test_continuous_actions_are_changed_as_rows() -> None:
    footage = Footage.plain(torch.zeros(4, 1), torch.zeros(4, 2))
    assert change_action(footage, 2, torch.tensor([1.0, 2.0])).actions.tolist() == [[0, 0], [1, 2], [0, 0], [0, 0]]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=20), st.lists(st.integers(-3, 3), min_size=1, max_size=20))
def test_area_under_roc_is_the_share_of_pairs_in_order(events: list[int], ordinary: list[int]) -> None:
    pairs = [(e > o) + 0.5 * (e == o) for e in events for o in ordinary]
    measured = area_under_roc(torch.tensor(events), torch.tensor(ordinary))
    assert measured == pytest.approx(sum(pairs) / len(pairs))
