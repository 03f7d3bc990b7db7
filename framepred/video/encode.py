"""One video file that frames of many episodes are added to, one after the other."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import cannot_write
from framepred.video.clock import exact_rate, slow_clock


@dataclass(frozen=True)
class Codec:
    """How frames are encoded: FFmpeg's encoder, the codec's name, its pixels, its options."""

    encoder: str
    name: str
    pixels: str
    options: dict[str, str]
    lossless: bool = False


CODECS = {
    "lossless": Codec("libx264rgb", "h264", "rgb24", {"qp": "0", "preset": "veryfast", "g": "10"}, True),
    "h264": Codec("libx264", "h264", "yuv420p", {"crf": "18", "g": "10"}),
    # What lerobot writes.
    "av1": Codec("libsvtav1", "av1", "yuv420p", {"crf": "30", "g": "2"}),
}


# In seconds: shorter than any clock of a video file ticks.
_TICK = Fraction(1, 90_000)


@contextmanager
def encoding(
    path: Path, codec: Codec, fps: float, size: tuple[int, int], even: bool = True
) -> Iterator[Callable[[Tensor, float], None]]:
    """Yield a function that adds a frame uint8 (3, H, W) of `size` (H, W); the file is whole when the block ends.

    It is given the frame's second too, at which it is shown where the frames are not `even`, one each 1 / fps seconds.
    Raises FramepredError for sides that are not even where the codec halves colours, and where the disk refuses.
    """
    if not codec.lossless and any(side % 2 for side in size):
        raise FramepredError(
            f"frames of {size[0]} x {size[1]} cannot be written by {codec.name}, whose sides are even: "
            "give --codec lossless"
        )
    os.environ.setdefault("SVT_LOG", "1")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        slow = slow_clock(fps) if even else {}
        with av.open(str(path.absolute()), "w", format="mp4", options=slow) as container:
            stream: Any = container.add_stream(codec.encoder, rate=exact_rate(fps), options=codec.options)
            stream.height, stream.width, stream.pix_fmt = *size, codec.pixels
            if not even:
                stream.codec_context.time_base = _TICK

            def add(frame: Tensor, seconds: float) -> None:
                picture = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
                if not even:
                    picture.pts, picture.time_base = round(seconds / _TICK), _TICK
                container.mux(stream.encode(picture))

            yield add
            container.mux(stream.encode())
    except av.error.FFmpegError as error:
        raise cannot_write(path, error) from error
