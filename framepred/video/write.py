"""Write video: uint8 RGB frames → a file."""

import os
import warnings
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import cannot_write, writing
from framepred.video.clock import exact_rate, say_rate, slow_clock

WRITE_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".gif": "gif", ".webp": "webp"}


def write_video(
    path: str | os.PathLike[str], frames: Iterable[Tensor] | Tensor, fps: float, lossless: bool = False
) -> None:
    """Write uint8 (3, H, W) frames to .mp4, .mkv (H.264), .gif or .webp, by the file's ending.

    The file appears under its name only when it is whole. `lossless` stores H.264 in RGB with a
    quantizer of 0: every pixel comes back as it was (FFmpeg players read it, browsers do not).
    """
    path = Path(path).absolute()
    if path.suffix.lower() not in WRITE_FORMATS:
        raise FramepredError(
            f"cannot write {path}: unknown ending {path.suffix!r}; give one of {', '.join(WRITE_FORMATS)}"
        )
    kind = WRITE_FORMATS[path.suffix.lower()]
    with writing(path) as temporary:
        if kind in ("gif", "webp"):
            _write_animation(temporary, kind, frames, fps)
        else:
            try:
                _write_h264(temporary, kind, frames, fps, lossless)
            except av.error.FFmpegError as error:
                raise cannot_write(path, error) from error


def _write_h264(path: Path, container_format: str, frames: Iterable[Tensor], fps: float, lossless: bool) -> None:
    codec, pixels, options = (
        ("libx264rgb", "rgb24", {"qp": "0", "preset": "veryfast"})
        if lossless
        else ("libx264", "yuv420p", {"crf": "16", "preset": "medium"})
    )
    options["movflags"] = "faststart"
    slow = slow_clock(fps) if container_format == "mp4" else {}
    with av.open(str(path), "w", format=container_format, options=slow) as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                # 4:2:0 halves the colour planes, so both sides must be even.
                even = 1 if lossless else 2
                stream = container.add_stream(codec, rate=exact_rate(fps), options=options)
                stream.height = frame.shape[1] // even * even
                stream.width = frame.shape[2] // even * even
                stream.pix_fmt = pixels
            pixels_hwc = frame[:, : stream.height, : stream.width].permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels_hwc, format="rgb24")))
        if stream is None:
            raise FramepredError("no frames to write: give at least one")
        container.mux(stream.encode())


def _write_animation(path: Path, kind: str, frames: Iterable[Tensor], fps: float) -> None:
    from PIL import Image

    pictures = [Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()) for frame in frames]
    if not pictures:
        raise FramepredError("no frames to write: give at least one")
    options: dict[str, Any] = {"quality": 90, "method": 4} if kind == "webp" else {}
    durations = _durations(len(pictures), fps, kind)
    pictures[0].save(path, kind, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)


def _durations(count: int, fps: float, kind: str) -> list[int]:
    """Return how long each frame of an animation is shown, in ms, so that together they have the rate.

    A rate that the format or its players cannot show is a warning.
    """
    unit, least, most = (10, 20, 655_350) if kind == "gif" else (1, 1, 16_777_215)
    period = min(max(1000 / fps, least), most)
    if abs(period * fps - 1000) > 1:
        message = f".{kind} cannot show {say_rate(fps)}: it is written at {say_rate(1000 / period)}; .mp4 can"
        warnings.warn(FramepredWarning(message), stacklevel=4)
    ends = [round(i * period / unit) * unit for i in range(count + 1)]
    return [max(b - a, least) for a, b in pairwise(ends)]
