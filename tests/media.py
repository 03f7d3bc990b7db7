"""Small media files made by hand: other codecs, explicit timestamps, sound without pictures."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch


def shades(frames: int, height: int, width: int) -> torch.Tensor:
    """Return uint8 (T, 3, H, W) frames that all differ: smooth gradients whose brightness drifts."""
    t = torch.arange(frames)[:, None, None, None]
    y, x = torch.arange(height)[:, None] * 2, torch.arange(width)
    base = torch.stack([(y + x).float(), (y + 40 + 0 * x).float(), (x + 80 + 0 * y).float()])
    return ((base + 10 * t) * 0.5 % 255).to(torch.uint8)


def encode(
    path: Path,
    frames: torch.Tensor,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    times: list[float] | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    transfer: int | None = None,
    last: float | None = None,
) -> None:
    """Encode uint8 (T, 3, H, W) with any codec; `times` gives each frame's second.

    `aspect` is a pixel's width over its height, `transfer` FFmpeg's number of how light is coded, `last` how many
    seconds the last frame is shown.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=10, options=options or {})
        stream.height, stream.width, stream.pix_fmt = frames.shape[2], frames.shape[3], pix_fmt
        if pix_fmt.startswith(("gray", "yuvj")):
            stream.codec_context.color_range = 2
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            picture.pts = round(1000 * (times[i] if times else i / 10))
            picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        for packet in stream.encode():
            if last is not None:
                packet.duration = round(last / packet.time_base)
            container.mux(packet)


def write_noise_mp4(path: Path, faststart: bool) -> None:
    """Write 60 frames that do not compress, so that every part of the file matters."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (60, 3, 64, 64), dtype=torch.uint8, generator=generator)
    encode(path, frames, options={"crf": "20"}, container_options={"movflags": "faststart"} if faststart else None)


def write_audio(path: Path, container_format: str, codec: str) -> None:
    """Write half a second of a tone, and no picture."""
    with av.open(str(path), "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=16000, layout="mono")
        wave = (np.sin(np.arange(8000) * 0.17) * 8000).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate = 16000
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def packets_of(path: Path) -> list[tuple[int, int]]:
    """Return where each packet of a video lies in its file, and its size."""
    data = path.read_bytes()
    with av.open(str(path)) as container:
        packets = [bytes(p) for p in container.demux(video=0) if p.size]
    return [(data.index(p), len(p)) for p in packets]


def lose_a_frame(path: Path) -> None:
    """Rename one chunk of an .avi, so that its frame is gone and its header still counts it."""
    data = bytearray(path.read_bytes())
    at = packets_of(path)[5][0]
    assert data[at - 8 : at - 4] == b"00dc"
    data[at - 8 : at - 4] = b"JUNK"
    path.write_bytes(data)
