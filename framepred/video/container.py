"""A video file → the stream that a player shows, or one clear line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av

from framepred.errors import FramepredError
from framepred.io.atomic import to_read
from framepred.video.clock import SAME_RATE

_Disposition = av.stream.Disposition
# FFmpeg draws text files as a terminal would, and follows lists.
_NO_PICTURES = {"tty": "text", "concat": "a list of other files", "hls": "a list of other files"}


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file's video stream, as (container, stream), turning every way that fails into one clear line."""
    if not to_read(path).exists():
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
        if container.format.name in _NO_PICTURES:
            raise FramepredError(f"{path} is {_NO_PICTURES[container.format.name]}, not a video: give a video file")
        stream = shown_stream(container)
        if stream is None:
            raise FramepredError(f"{path} holds no video stream (audio only?): give a video file")
        stream.thread_type = "AUTO"
        yield container, stream


def shown_stream(container: Any) -> Any:
    """Return the video stream that players show: the one marked default, or the first; None where there is none."""
    streams = video_streams(container)
    return next((s for s in streams if s.disposition & _Disposition.default), streams[0] if streams else None)


def video_streams(container: Any) -> list[Any]:
    """Return the streams of moving pictures; an album cover is a "video" stream inside an audio file."""
    return [s for s in container.streams.video if not s.disposition & _Disposition.attached_pic]


def frames_counted(container: Any, stream: Any, fps: float | None) -> int | None:
    """Return how many frames a file's header says are shown, at a rate `fps` if known; None where it does not say.

    The samples that an edit list leaves out are not counted. AVI counts ticks, which may be more than frames: its index
    counts these, unless it ends before them.
    """
    if not stream.frames:
        return None
    index = stream.index_entries
    if "mov" in container.format.name.split(","):
        return sum(not entry.is_discard for entry in index)
    if container.format.name == "avi":
        whole = len(index) > 0 and index[len(index) - 1].timestamp >= stream.frames - 1
        if whole or fps is None or abs(fps * float(stream.time_base) - 1) > SAME_RATE:
            return len(index) or None
    return int(stream.frames)


def says_when_shown(container: Any) -> bool:
    """Say whether a file tells when frames are shown; of AVI and bare streams these times are FFmpeg's guess."""
    return container.format.name != "avi" and not container.format.flags & av.format.Flags.no_timestamps.value


def seconds_said(container: Any, stream: Any) -> float | None:
    """Return when a stream ends as a header says that a file which breaks off still has; None where none does.

    The whole file's end is that of the stream where it is the only one.
    """
    named = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", ""))
    if named:
        return int(named[1]) * 3600 + int(named[2]) * 60 + float(named[3])
    if len(container.streams) > 1 or not {"matroska", "asf", "flv"} & {*container.format.name.split(",")}:
        return None
    return container.duration / av.time_base if container.duration else None


def rates_said(stream: Any) -> list[float]:
    """Return the frame rates in Hz that a file's header gives, the best first; some may be far off."""
    return [float(r) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r]


def may_start_over(container: Any) -> bool:
    """Say whether a format's clock is known to start over or to jump in the middle of a file."""
    return bool(container.format.flags & av.format.Flags.ts_discont.value)
