"""Read video: a file → uint8 RGB frames, resized, cropped and resampled by timestamp."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.video.resize import fit_frames

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")


@dataclass(frozen=True)
class Clip:
    """A stretch of video: `frames` uint8 (T, 3, H, W) RGB and its frame rate in Hz."""

    frames: Tensor
    fps: float


@dataclass(frozen=True)
class VideoInfo:
    """What a video file's header says, sizes after rotation; `num_frames` is None where the header has no number."""

    width: int
    height: int
    fps: float
    num_frames: int | None
    seconds: float | None
    codec: str


@contextmanager
def _open(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open the first video stream of a file, turning every way that fails into one clear line."""
    if not path.exists():
        raise FramepredError(f"video {path} does not exist: give a file that FFmpeg can read")
    if path.is_dir():
        raise FramepredError(f"{path} is a folder, not a video: give one video file")
    if path.stat().st_size == 0:
        raise FramepredError(f"video {path} is empty (0 bytes): give a file that FFmpeg can read")
    try:
        # Absolute, because FFmpeg takes what stands before a colon for a protocol.
        container = av.open(str(path.absolute()))
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FramepredError(
            f"cannot read {path} as video ({reason}): give a complete file that FFmpeg can read"
        ) from error
    with container:
        # FFmpeg draws text files as a terminal would.
        if container.format.name == "tty":
            raise FramepredError(f"{path} is text, not a video: give a video file")
        # An album cover is a "video" stream of one picture inside an audio file.
        streams = [s for s in container.streams.video if not s.disposition & 0x400]
        if not streams:
            raise FramepredError(f"{path} holds no video stream (audio only?): give a video file")
        stream = streams[0]
        stream.thread_type = "AUTO"
        yield container, stream


def _rate(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    return float(rate) if rate else 25.0


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Return what a video's header says, without decoding it whole."""
    path = Path(path)
    with _open(path) as (container, stream):
        _, first = next(_decode(container, stream, path))
        seconds = None
        if stream.duration and stream.time_base:
            seconds = float(stream.duration * stream.time_base)
        elif container.duration:
            seconds = container.duration / av.time_base
        return VideoInfo(
            width=first.shape[2],
            height=first.shape[1],
            fps=_rate(stream),
            num_frames=stream.frames or None,
            seconds=seconds,
            codec=stream.codec_context.name,
        )


def _decode(container: Any, stream: Any, path: Path) -> Iterator[tuple[float, Tensor]]:
    """Yield (seconds, upright uint8 (3, H, W) frame); warn where the file breaks off early."""
    period = 1.0 / _rate(stream)
    count, seconds = 0, -period
    # One for all frames: to prepare a conversion costs as much as to decode a small frame.
    converter = av.video.reformatter.VideoReformatter()
    try:
        for frame in container.decode(stream):
            seconds = seconds + period if frame.time is None else frame.time
            picture = torch.from_numpy(converter.reformat(frame, format="rgb24").to_ndarray())
            turns = round(frame.rotation / 90) % 4
            yield seconds, torch.rot90(picture, turns, (0, 1)).permute(2, 0, 1)
            count += 1
    except av.error.FFmpegError as error:
        if count == 0:
            raise FramepredError(
                f"no frame of {path} could be decoded ({error.strerror}): give a complete video file"
            ) from error
        warnings.warn(
            FramepredWarning(f"{path} is damaged after frame {count} ({error.strerror}); the rest is ignored"),
            stacklevel=2,
        )
        return
    if count == 0:
        raise FramepredError(f"no frame of {path} could be decoded: give a complete video file")
    # Containers often count a frame or two that no player shows.
    if stream.frames and count < stream.frames * 0.98 - 2:
        warnings.warn(
            FramepredWarning(f"{path} breaks off: {count} of {stream.frames} frames could be decoded"),
            stacklevel=2,
        )


def _resample(timed: Iterator[tuple[float, Tensor]], fps: float, last_period: float) -> Iterator[Tensor]:
    """Yield the frame on screen at each time k/fps, counted from the first frame."""
    start, shown, k = 0.0, None, 0
    seconds = 0.0
    tolerance = 1e-4
    for seconds, frame in timed:
        if shown is None:
            start = seconds
        else:
            while k / fps < seconds - start - tolerance:
                yield shown
                k += 1
        shown = frame
    while shown is not None and k / fps < seconds - start + last_period - tolerance:
        yield shown
        k += 1


def stream_timed(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    chunk: int = 64,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a video's frames in order as uint8 (n, 3, H, W), n ≤ chunk, with their times, float64 (n,).

    Times are in seconds from the first; no more than a chunk is in memory. `size` is (height, width): scaled to cover
    it, then centre-cropped. `fps` resamples by timestamp, so variable frame rates come out right; None keeps every
    frame. Rotation metadata is applied.
    """
    path = Path(path)
    with _open(path) as (container, stream):
        timed = _decode(container, stream, path)
        rate = _rate(stream)
        if fps is not None:
            timed = ((k / fps, frame) for k, frame in enumerate(_resample(timed, fps, 1.0 / rate)))
        held: list[Tensor] = []
        times: list[float] = []
        first: float | None = None
        for seconds, frame in timed:
            first = seconds if first is None else first
            times.append(seconds - first)
            # Scaled one by one, while a processor's cache still holds them; all must be as large as the first.
            height, width = size or (held[0] if held else frame).shape[-2:]
            held.append(fit_frames(frame[None], (height, width)))
            if len(held) == chunk:
                yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
                held, times = [], []
        if held:
            yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)


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
    return Clip(frames, float(fps) if fps else probe_video(path).fps)


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
