"""What a video file is like, from its header, its packets' times and its first picture."""

import functools
import math
import os
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.video.clock import SAME_RATE, same_rate
from framepred.video.container import frames_counted, may_start_over, open_video, rates_said
from framepred.video.decode import Faults, decode_packet, is_end, packets_of
from framepred.video.picture import to_picture

# An hour at 30 frames a second: more packets are not looked at.
_MOST_PACKETS = 108_000
# A picture of a slower video would be repeated more often than this, for nothing.
_MOST_REPEATS = 100
# Where a format's clock may jump, FFmpeg takes a longer step for a jump.
LONGEST_STEP = 10.0


@dataclass(frozen=True)
class VideoInfo:
    """What a video is like: sizes as shown, `fps` in Hz the rate of most frames.

    `num_frames` is None where neither the header nor the packets tell it; `missing` is how many of the frames that the
    header counts the file lacks. `even` says whether all frames are shown equally long.
    """

    width: int
    height: int
    fps: float
    num_frames: int | None
    seconds: float | None
    codec: str
    even: bool = True
    missing: int = 0

    def has_rate(self, fps: float) -> bool:
        """Say whether all frames are shown equally long, at this rate: 29.97 and 30 are the same."""
        return self.even and same_rate(self.fps, fps)

    def is_slow(self, fps: float) -> bool:
        """Say whether, resampled to `fps`, each frame would only be repeated, very often."""
        return fps > _MOST_REPEATS * self.fps


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what a video file is like, without decoding it whole.

    Raises FramepredError for a file that is missing, empty, not a video or has no decodable frame.
    """
    path = to_read(path)
    try:
        about = path.stat()
    except OSError:
        return _probe(path, 0, 0)
    return _probe(path, about.st_size, about.st_mtime_ns)


# A packet's presentation and decoding time in ticks, and whether an edit list leaves it out.
_Time = tuple[int | None, int | None, bool]


@functools.lru_cache(4096)
def _probe(path: Path, _size: int, _changed: int) -> VideoInfo:
    with open_video(path) as (container, stream):
        faults, picture, whole = Faults(path), None, False
        lasts, times = list[float](), list[_Time]()
        tick = float(stream.time_base or 0)
        for packet in packets_of(container, stream, faults):
            if picture is None:
                frames = decode_packet(packet, faults)
                picture = to_picture(frames[0], VideoReformatter(), stream.sample_aspect_ratio) if frames else None
            whole = is_end(packet)
            if whole or len(times) == _MOST_PACKETS:
                break
            times.append((packet.pts, packet.dts, packet.is_discard))
            if not packet.is_discard:
                lasts.append((packet.duration or 0) * tick)
        if picture is None:
            why = f" ({faults.error})" if faults.error else ""
            raise FramepredError(f"no frame of {path} could be decoded{why}: give a complete video file")
        longest = LONGEST_STEP if may_start_over(container) else math.inf
        steps = [s * tick for s in _steps(times) if 0 < s * tick <= longest]
        fps, even = _rate(steps or [x for x in lasts if x], tick, rates_said(stream))
        seconds = len(lasts) / fps if even else sum(steps) + (lasts[-1] or 1 / fps)
        if not whole:
            seconds = stream.duration * tick if stream.duration else (container.duration or 0) / av.time_base
        counted = frames_counted(container, stream, fps)
        return VideoInfo(
            width=picture.shape[2],
            height=picture.shape[1],
            fps=fps,
            num_frames=counted or (len(lasts) if whole else None),
            seconds=seconds or None,
            codec=stream.codec_context.name,
            even=even,
            missing=max(0, (counted or 0) - len(lasts)) if whole else 0,
        )


def _steps(times: list[_Time]) -> list[int]:
    """Return the steps of time between frames as they are shown; those of decoding where nothing says when that is."""
    steps = list[int]()
    for part in _one_clock(times):
        shown = [presented for presented, _, left_out in part if not left_out]
        decoded = [at for _, at, left_out in part if not left_out]
        known = decoded if None in shown and None not in decoded else shown
        steps += [b - a for a, b in pairwise(sorted(t for t in known if t is not None))]
    return steps


def _one_clock(times: list[_Time]) -> Iterator[list[_Time]]:
    """Yield the stretches in which the decoding times grow: within each, frames are shown in the order of a clock."""
    part, last = list[_Time](), None
    for time in times:
        if last is not None and time[1] is not None and time[1] < last:
            yield part
            part = []
        last = last if time[1] is None else time[1]
        part.append(time)
    yield part


def _rate(steps: list[float], tick: float, said: list[float]) -> tuple[float, bool]:
    """Return (the rate of most frames in Hz, whether all are shown equally long), given the times between them.

    A rate that the header says is exact, where the frames are shown at that rate.
    """
    if not steps:
        return (said[0] if said else 25.0), True
    mean = statistics.fmean(steps)
    even = all(abs(step - mean) <= SAME_RATE * mean + tick for step in steps)
    rate = 1 / (mean if even else statistics.median(steps))
    return next((r for r in said if same_rate(r, rate)), rate), even
