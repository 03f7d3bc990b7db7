"""When frames are shown: what a file says of it → seconds that only grow, and frames at an even rate."""

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise
from typing import TypeVar

T = TypeVar("T")

# A decoder holds back no more frames than this, so times that are out of order are so within as many.
AHEAD = 16
# A picture that would be repeated more often is a jump of the clock, or useless: it is shown once.
MOST_COPIES = 3000
# Rates that differ by a smaller share are the same, as 29.97 and 30 are.
SAME_RATE = 0.02
# Rates that can be, in Hz: from a time lapse to a high-speed camera.
SLOWEST, FASTEST = 1 / 3600, 1000.0


@dataclass(frozen=True)
class Stamp:
    """What a file says of one frame, in seconds: when it is shown and decoded, None where it does not say, and how
    long it lasts, 0 where it does not say."""

    shown: float | None
    decoded: float | None
    lasts: float = 0.0


def same_rate(fps: float, wanted: float) -> bool:
    """Say whether a rate in Hz is, but for a small share, the one that is wanted: 29.97 and 30 are the same."""
    return abs(fps - wanted) <= SAME_RATE * wanted


def say_rate(fps: float) -> str:
    """Return a frame rate in words: "30 frames a second", "a frame each 120 s"."""
    return f"{fps:.6g} frame{'s' if fps > 1 else ''} a second" if fps >= 1 else f"a frame each {1 / fps:,.6g} s"


def exact_rate(fps: float) -> Fraction:
    """Return a rate in Hz as the short fraction that a file holds; slow ones, as a frame an hour, are exact too."""
    return Fraction(fps).limit_denominator(1001) if fps >= 1 else 1 / Fraction(1 / fps).limit_denominator(1001)


def slow_clock(fps: float) -> dict[str, str]:
    """Return FFmpeg's options that make the clock of an .mp4 tick slowly enough for a rate in Hz: none for most.

    Its own ticks 10,000 times a second or more, and counts frames that last many hours wrongly.
    """
    return {"video_track_timescale": str(exact_rate(fps).numerator)} if fps < 1 else {}


def doubt_rate(fps: float) -> str | None:
    """Say of a rate in Hz that it can hardly be; None of one that can."""
    if SLOWEST * (1 - SAME_RATE) <= fps <= FASTEST * (1 + SAME_RATE):
        return None
    return f"says {say_rate(fps)}, which can hardly be: its times may be wrong"


def mend(
    frames: Iterable[tuple[Stamp, T]],
    period: float,
    longest: float = float("inf"),
    starts_over: Callable[[int], None] = lambda _: None,
) -> Iterator[tuple[float, float, T]]:
    """Yield (seconds, how long it lasts, frame): seconds are 0 for the first and grow with every frame.

    A frame's time is the one that the file says. One that is missing, repeats, or stands out of line between its
    neighbours lies evenly between them. Where the clock goes back, or on by more than `longest`, it starts over:
    time goes on by what the frame before lasts, or `period`, and `starts_over` is told the frame's number.
    """
    waiting: list[tuple[float, T]] = []
    known: tuple[float, float] | None = None
    number, now, before = 0, -period, 0.0
    for said, following, lasts, frame in _with_next(_one_clock(frames)):
        waiting.append((lasts, frame))
        in_line = said is not None and (known is None or _in_line(known[0], said, following))
        if not in_line and len(waiting) < AHEAD:
            continue
        end = None
        if in_line and known is not None and said is not None:
            end = known[1] + said - known[0]
            if not now < end or said - known[0] > longest:
                end = None
                starts_over(number + len(waiting) - 1)
        number += len(waiting)
        now, before = yield from _spread(waiting, now, before or period, end, period)
        if in_line and said is not None:
            known = said, now
        waiting = []
    yield from _spread(waiting, now, before or period, None, period)


def _spread(
    waiting: list[tuple[float, T]], now: float, step: float, end: float | None, period: float
) -> Generator[tuple[float, float, T], None, tuple[float, float]]:
    """Yield frames evenly up to `end`, or each as much later as the one before it lasts; return the last's times."""
    lasts = step
    for i, (lasts, frame) in enumerate(waiting):
        now += step if end is None else (end - now) / (len(waiting) - i)
        step = lasts or period
        yield now, step, frame
    return now, lasts


def _in_line(known: float, said: float, following: float | None) -> bool:
    """Say whether a time is one to go by, given the one before it and the next that the file says."""
    if said == known:
        return False
    if said > known:
        return following is None or not known < following < said
    return following is None or following <= known


def _one_clock(frames: Iterable[tuple[Stamp, T]]) -> Iterator[tuple[float | None, float, T]]:
    """Yield (time, how long it lasts, frame) by presentation times, or by decoding times where only these are in order.

    AVI has no presentation times; those that FFmpeg makes up are out of order where frames are coded out of order.
    """
    source = iter(frames)
    first = list(islice(source, AHEAD))
    shown, decoded = (
        sum(b is None or a is None or b <= a for a, b in pairwise(x))
        for x in ([s.shown for s, _ in first], [s.decoded for s, _ in first])
    )
    for part in (first, source):
        for stamp, frame in part:
            yield (stamp.decoded if decoded < shown else stamp.shown), stamp.lasts, frame


def _with_next(
    frames: Iterator[tuple[float | None, float, T]],
) -> Iterator[tuple[float | None, float | None, float, T]]:
    """Yield (time, the next other time that is known, how long it lasts, frame), looking at most `AHEAD` ahead."""
    ahead: deque[tuple[float | None, float, T]] = deque()
    for item in frames:
        ahead.append(item)
        if len(ahead) > AHEAD:
            yield _first_with_next(ahead)
    while ahead:
        yield _first_with_next(ahead)


def _first_with_next(ahead: deque[tuple[float | None, float, T]]) -> tuple[float | None, float | None, float, T]:
    said, lasts, frame = ahead.popleft()
    return said, next((x for x, _, _ in ahead if x is not None and x != said), None), lasts, frame


def resample(
    frames: Iterable[tuple[float, float, T]],
    fps: float,
    tick: float = 0.0,
    still: Callable[[float], None] = lambda _: None,
) -> Iterator[tuple[float, T]]:
    """Yield (seconds, frame): the frame that is on the screen at each time k / fps, counted from the first.

    `frames` are (seconds, how long it lasts, frame) as `mend` gives them, `tick` the unit that they are rounded to. A
    frame that would be repeated over `MOST_COPIES` times is shown once, and `still` is told for how many seconds.
    """
    tolerance = min(max(1e-4, tick), 0.1 / fps)
    k, start = 0, 0.0
    on_screen: tuple[float, float, T] | None = None
    for item in frames:
        if on_screen is None:
            start = item[0]
        else:
            k = yield from _hold(on_screen[2], k, item[0] - start, fps, tolerance, still)
        on_screen = item
    if on_screen is not None:
        yield from _hold(on_screen[2], k, on_screen[0] + on_screen[1] - start, fps, tolerance, still)


def _hold(
    frame: T, k: int, until: float, fps: float, tolerance: float, still: Callable[[float], None]
) -> Generator[tuple[float, T], None, int]:
    """Yield a frame at each time k / fps before `until`; return the number of the next time."""
    stop = max(k, math.ceil((until - tolerance) * fps))
    copies = stop - k
    if copies > MOST_COPIES:
        still(copies / fps)
        copies = 1
    for i in range(k, k + copies):
        yield i / fps, frame
    return stop
