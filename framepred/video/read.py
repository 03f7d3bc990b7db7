"""Read video: a file → uint8 RGB frames as a player shows them, resized, cropped and resampled by their times."""

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from av.video.reformatter import VideoReformatter
from torch import Tensor

from framepred.errors import FramepredError
from framepred.video.clock import Stamp, mend, resample
from framepred.video.container import may_start_over, open_video, video_streams
from framepred.video.decode import Faults, decode
from framepred.video.picture import HDR_TRANSFERS, display_matrix, is_slanted, to_picture
from framepred.video.probe import LONGEST_STEP, probe_video
from framepred.video.resize import fit_frames


@dataclass(frozen=True)
class Clip:
    """A stretch of video: `frames` uint8 (T, 3, H, W) RGB and its frame rate in Hz."""

    frames: Tensor
    fps: float


def stream_timed(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    chunk: int = 64,
    whole: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a video's frames in order as uint8 (n, 3, H, W), n ≤ chunk, with their times, float64 (n,).

    Times are in seconds from the first; no more than a chunk or two are in memory. `size` is (height, width): pictures
    of another shape are cropped, or made to fit as a `FrameSize` says. `fps` resamples by the frames' own times, so
    variable frame rates come out right; every frame is kept where it is None, or each would be repeated over a hundred
    times. Frames are upright, with square pixels. What is wrong with the file is a warning; a frame that is missing is
    a FramepredError where the video must be `whole`, because actions belong to its frames.
    """
    path = Path(path)
    with ExitStack() as stack:
        container, stream = stack.enter_context(open_video(path))
        faults = Faults(path, whole)
        stack.callback(faults.warn)
        info = probe_video(path)
        if whole and info.missing:
            raise faults.unmatched(f"{info.missing} of {info.num_frames} frames are missing")
        if fps is not None and info.is_slow(fps):
            faults.note_slow(info.fps, fps)
            fps = None
        longest = LONGEST_STEP if may_start_over(container) else math.inf
        pictures = _pictures(container, stream, info.fps, size, faults)
        timed = mend(pictures, 1 / info.fps, longest, faults.clock.append)
        # Without actions a rate may vary; where frames get lost on the way, holes are no rate.
        unusual = 1.5 / info.fps if whole or may_start_over(container) else math.inf
        shown = _as_they_are(timed, unusual, faults)
        if fps is not None:
            shown = resample(timed, fps, float(stream.time_base or 0), faults.note_still)
        held: list[Tensor] = []
        times: list[float] = []
        for seconds, frame in shown:
            times.append(seconds)
            held.append(frame)
            if len(held) == chunk:
                yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
                held, times = [], []
        if held:
            yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)


def _as_they_are(
    timed: Iterator[tuple[float, float, Tensor]], usual: float, faults: Faults
) -> Iterator[tuple[float, Tensor]]:
    """Yield frames with their seconds; note those that another follows only after more than `usual` seconds."""
    before, number = math.inf, 0
    for seconds, _, frame in timed:
        if seconds - before > usual:
            faults.long.append(number - 1)
        yield seconds, frame
        before, number = seconds, number + 1


def _pictures(
    container: Any, stream: Any, fps: float, size: tuple[int, int] | None, faults: Faults
) -> Iterator[tuple[Stamp, Tensor]]:
    """Yield (stamp, frame uint8 (1, 3, H, W)) of one size: `size`, or that of the first."""
    # One for all frames: to prepare a conversion costs as much as to decode a small frame.
    converter = VideoReformatter()
    _note_streams(container, stream, faults)
    coded: tuple[int, int] | None = None
    for stamp, frame in decode(container, stream, faults, fps):
        if coded != (frame.width, frame.height):
            _note_frame(frame, coded, faults)
            coded = frame.width, frame.height
        # Scaled one by one, while a processor's cache still holds them.
        picture = to_picture(frame, converter, stream.sample_aspect_ratio)[None]
        size = size or (picture.shape[2], picture.shape[3])
        yield stamp, fit_frames(picture, size)


def _note_streams(container: Any, stream: Any, faults: Faults) -> None:
    streams = video_streams(container)
    if len(streams) > 1:
        shape = f"{stream.codec_context.width}x{stream.codec_context.height}"
        faults.note(
            "streams",
            f"it holds {len(streams)} video streams; number {streams.index(stream) + 1} ({shape}), which players show, "
            "is read",
        )


def _note_frame(frame: Any, before: tuple[int, int] | None, faults: Faults) -> None:
    """Note what of a frame is not as a player may show it; `before` is the (width, height) of those before it."""
    if before is not None:
        sizes = f"{before[0]}x{before[1]} to {frame.width}x{frame.height}"
        faults.note("size", f"frames change from {sizes} at frame {faults.frames - 1}: all are scaled to one size")
    if is_slanted(display_matrix(frame)):
        faults.note("matrix", "it is to be shown at a slant: frames are turned by the nearest quarter turn")
    if frame.color_trc in HDR_TRANSFERS:
        name = HDR_TRANSFERS[frame.color_trc]
        faults.note("hdr", f"high dynamic range ({name}) is read without tone mapping: colours are paler than shown")
    if frame.interlaced_frame:
        faults.note("interlaced", "it is interlaced, and read as it is: moving edges are combs of two moments")


def read_video(
    path: str | os.PathLike[str],
    size: tuple[int, int] | int | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
) -> Clip:
    """Read a video file into memory: frames uint8 (T, 3, H, W) RGB; `size` (height, width) or a side.

    Raises FramepredError for a file that is missing, empty, not a video or has no decodable frame.
    """
    if isinstance(size, int):
        size = (size, size)
    if fps is not None and not fps > 0:
        raise FramepredError(f"fps {fps} is not allowed: give a positive number of frames a second")
    frames, _ = gather(stream_timed(path, size, fps), max_frames)
    info = probe_video(path)
    return Clip(frames, float(fps) if fps and not info.is_slow(fps) else info.fps)


def gather(chunks: Iterator[tuple[Tensor, Tensor]], max_frames: int | None = None) -> tuple[Tensor, Tensor]:
    """Join chunks of frames and times, or the first `max_frames` of them → uint8 (T, 3, H, W), float64 (T,)."""
    parts, total = list[tuple[Tensor, Tensor]](), 0
    for part in chunks:
        parts.append(part)
        total += len(part[0])
        if max_frames is not None and total >= max_frames:
            break
    frames, times = (torch.cat(part)[:max_frames] for part in zip(*parts, strict=True))
    return frames, times
