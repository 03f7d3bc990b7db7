"""Times of frames and even rates: the same as a slow reference written from the definition, whatever a file says."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framepred.video import clock
from framepred.video.clock import AHEAD, Stamp, mend, resample, say_rate

Said = list[float | None]

ms = st.integers(0, 3000).map(lambda n: n / 1000)
growing = st.lists(ms, min_size=1, max_size=40, unique=True).map(sorted)
broken = st.lists(st.none() | ms, min_size=1, max_size=60)


def joined(parts: list[list[float]]) -> Said:
    return [t for part in parts for t in part]


# Clocks that grow, start over, have holes and repeats, and nonsense.
clocks = st.one_of(growing, st.lists(growing, min_size=2, max_size=4).map(joined), broken)


def times_of(shown: Said, decoded: Said | None = None, period: float = 0.04, lasts: float = 0.0, **more) -> list[float]:
    frames = (
        (Stamp(s, d, lasts), i) for i, (s, d) in enumerate(zip(shown, decoded or [None] * len(shown), strict=True))
    )
    made = list(mend(frames, period, **more))
    assert [frame for _, _, frame in made] == list(range(len(shown)))
    return [seconds for seconds, _, _ in made]


def slow_times(said: Said, period: float) -> list[float]:
    """The definition of `mend`, on a whole list of presentation times."""
    times: list[float] = []
    anchor: tuple[float, float] | None = None
    first = 0
    for i, value in enumerate(said):
        later = [v for v in said[i + 1 : i + 1 + AHEAD] if v is not None and v != value]
        good = value is not None
        if good and anchor is not None:
            last = anchor[0]
            straight = [last, value, *later[:1]]
            out_of_line = value != last and later and later[0] > last and straight != sorted(straight)
            good = value != last and not out_of_line
        if not good and i - first + 1 < AHEAD and i + 1 < len(said):
            continue
        count, before = i - first + 1, times[-1] if times else -period
        end = anchor[1] + value - anchor[0] if good and anchor is not None else None
        if end is not None and end > before:
            times += [before + (end - before) * (k + 1) / count for k in range(count)]
        else:
            times += [before + period * (k + 1) for k in range(count)]
        anchor = (value, times[-1]) if good else anchor
        first = i + 1
    return times


@settings(max_examples=150)
@given(clocks)
def test_any_list_of_times_is_mended_as_the_slow_reference_says(said: Said) -> None:
    times = times_of(said)
    assert times == pytest.approx(slow_times(said, 0.04), abs=1e-9)
    assert times[0] == 0
    assert all(b > a for a, b in pairwise(times))


@settings(max_examples=50)
@given(growing, st.sampled_from([-5.0, 0.0, 1e6]))
def test_times_that_grow_are_kept_as_they_are(said: list[float], start: float) -> None:
    assert times_of([t + start for t in said]) == pytest.approx([t - said[0] for t in said], abs=1e-6)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([0.0, 0.1, 0.2, 0.0, 0.1, 0.2], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ([0.0, 0.1, 0.1, 0.1, 0.4], [0.0, 0.1, 0.2, 0.3, 0.4]),
        ([0.0, None, 0.2, None, None, 0.5, None], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        ([0.0, 0.1, 0.2, 9000.0, 0.4, 0.5], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ([0.0, 0.1, 0.2, 0.01, 0.4, 0.5], [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ([0.0, 0.1, 5.0, 5.1], [0.0, 0.1, 5.0, 5.1]),
        ([None] * 40, [k / 10 for k in range(40)]),
    ],
    ids=["starts over", "repeats", "holes", "far off", "back once", "a real gap", "none"],
)
def test_what_is_wrong_with_a_clock(said: Said, wanted: list[float]) -> None:
    assert times_of(said, period=0.1) == pytest.approx(wanted)


def test_decoding_times_are_used_where_only_they_are_in_order() -> None:
    shown: Said = [1, 4, 3, 5, 2, 8, 7, 9, 6, 12, 11, 10]
    decoded: Said = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, None, None]
    assert times_of(shown, decoded, period=1.0) == pytest.approx(range(12))


def test_a_jump_that_is_too_long_is_closed_and_told() -> None:
    told: list[int] = []
    assert times_of([0.0, 0.1, 3600.0, 3600.1], period=0.1, longest=10, starts_over=told.append) == pytest.approx(
        [0.0, 0.1, 0.2, 0.3]
    )
    assert told == [2]


def slow_resample(times: list[float], lasts: float, fps: float, most: int) -> list[tuple[float, int]]:
    """What is on the screen at each k / fps, one moment after the other."""
    tolerance = min(1e-4, 0.1 / fps)
    shown, k = [], 0
    while k / fps < times[-1] - times[0] + lasts - tolerance:
        shown.append((k, max(i for i, t in enumerate(times) if t - times[0] <= k / fps + tolerance)))
        k += 1
    often = {i for i in range(len(times)) if sum(j == i for _, j in shown) > most}
    firsts = {i: min(k for k, j in shown if j == i) for i in often}
    return [(k / fps, i) for k, i in shown if i not in often or k == firsts[i]]


@settings(max_examples=60)
@given(clocks, st.sampled_from([1 / 3600, 0.5, 1.0, 7.5, 10.0, 24000 / 1001, 30.0, 60.0]))
def test_resampling_is_what_is_on_the_screen_at_each_moment(said: Said, fps: float) -> None:
    times = times_of(said)
    for most in (12, 10_000):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(clock, "MOST_COPIES", most)
            made = list(resample(((t, 0.04, i) for i, t in enumerate(times)), fps))
        wanted = slow_resample(times, 0.04, fps, most)
        assert [i for _, i in made] == [i for _, i in wanted]
        assert [t for t, _ in made] == pytest.approx([t for t, _ in wanted])
        assert len(made) <= most * len(times)


def test_resampling_ends_however_long_a_picture_is_shown() -> None:
    told: list[float] = []
    frames = [(0.0, 0.1, "a"), (0.1, 0.1, "b"), (1e9, 0.1, "c")]
    assert [f for _, f in resample(frames, 10.0, still=told.append)] == ["a", "b", "c"]
    assert told == [pytest.approx(1e9, rel=1e-6)]


def test_times_rounded_to_milliseconds_lose_no_frame_and_double_none() -> None:
    frames = [(round(k * 1000 / 60) / 1000, 0.017, k) for k in range(120)]
    assert [k for _, k in resample(frames, 30.0, tick=0.001)] == list(range(0, 120, 2))


@pytest.mark.parametrize(
    ("fps", "words"),
    [
        (1 / 3600, "a frame each 3,600 s"), (1 / 120, "a frame each 120 s"), (0.3, "a frame each 3.33333 s"),
        (1.0, "1 frame a second"), (30000 / 1001, "29.97 frames a second"), (1000.0, "1000 frames a second"),
    ],
)  # fmt: skip
def test_a_rate_is_never_nothing(fps: float, words: str) -> None:
    assert say_rate(fps) == words
