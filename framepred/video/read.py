"""Read and write video: files ⇄ uint8 RGB frames, resized, cropped and resampled by timestamp."""

import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import cannot_write, writing
from framepred.io.compat import ensure_torchvision

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".gif")
WRITE_FORMATS = {".mp4": "mp4", ".mkv": "matroska", ".gif": "gif", ".webp": "webp"}


@dataclass(frozen=True)
class Clip:
    """A stretch of video: `frames` uint8 (T, 3, H, W) RGB and its frame rate in Hz."""

    frames: Tensor
    fps: float


@dataclass(frozen=True)
class VideoInfo:
    """What a video file says of itself, after rotation; `num_frames` is the container's claim or None."""

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
    # One for all frames: each of its own would prepare the conversion anew, at the price of decoding a small frame.
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


def fit_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale (T, 3, H, W) to cover `size` = (height, width) and crop the centre."""
    height, width = frames.shape[-2:]
    if (height, width) == size:
        return frames
    ensure_torchvision()
    from torchvision.transforms.v2 import functional as F

    scale = max(size[0] / height, size[1] / width)
    cover = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    return F.center_crop(F.resize(frames, cover, antialias=True), list(size))


def stream_video(
    path: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    fps: float | None = None,
    chunk: int = 64,
) -> Iterator[Tensor]:
    """Yield a video's frames in order as uint8 (≤ chunk, 3, H, W), never holding more than a chunk.

    `size` is (height, width): scaled to cover it, then centre-cropped. `fps` resamples by timestamp,
    so variable frame rates come out right; None keeps every frame. Rotation metadata is applied.
    """
    path = Path(path)
    with _open(path) as (container, stream):
        timed = _decode(container, stream, path)
        rate = _rate(stream)
        frames = (frame for _, frame in timed) if fps is None else _resample(timed, fps, 1.0 / rate)
        held: list[Tensor] = []
        for frame in frames:
            # Scaled one by one, while a processor's cache still holds them; all must be as large as the first.
            height, width = size or (held[0] if held else frame).shape[-2:]
            held.append(fit_frames(frame[None], (height, width)))
            if len(held) == chunk:
                yield torch.cat(held).contiguous()
                held = []
        if held:
            yield torch.cat(held).contiguous()


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
    chunks: list[Tensor] = []
    total = 0
    for frames in stream_video(path, size, fps):
        chunks.append(frames)
        total += len(frames)
        if max_frames is not None and total >= max_frames:
            break
    return Clip(torch.cat(chunks)[:max_frames], float(fps) if fps else probe_video(path).fps)


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
    with av.open(str(path), "w", format=container_format) as container:
        stream: Any = None
        for frame in frames:
            if stream is None:
                # 4:2:0 halves the colour planes, so both sides must be even.
                even = 1 if lossless else 2
                rate = Fraction(fps).limit_denominator(1001)
                stream = container.add_stream(codec, rate=rate, options=options)
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
    pictures[0].save(
        path, kind, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0, **options
    )
