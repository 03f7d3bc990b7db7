"""A stretch of a video file, counted in frames: many episodes may share one file."""

import functools
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

from av.video.reformatter import VideoReformatter
from torch import Tensor

from framepred.errors import FramepredError
from framepred.video.container import open_video
from framepred.video.decode import Faults, decode, packets_of
from framepred.video.picture import to_picture


def stream_stretch(path: Path, first: int, count: int, total: int) -> Iterator[Tensor]:
    """Yield frames uint8 (3, H, W) `first` to `first + count - 1` of a file that must hold `total`.

    They are found by counting, never by seconds, which drift; what is decoded begins at the last key frame before.
    Raises FramepredError where the file holds another number of frames, or one of them cannot be decoded.
    """
    try:
        about = path.stat()
    except OSError:
        raise FramepredError(f"{path} does not exist: the dataset is not whole; copy or download it again") from None
    order = _order(path, about.st_size, about.st_mtime_ns)
    if len(order) != total:
        raise FramepredError(
            f"{path} holds {len(order)} frames, its episodes are {total} frames long: counts disagree; "
            "copy or download the dataset again"
        )
    given = 0
    for picture in islice(_from_frame(path, first, order), count):
        given += 1
        yield picture
    if given < count:
        raise FramepredError(
            f"{path}: {given} of frames {first} to {first + count - 1} could be decoded: it is damaged"
        )


def _from_frame(path: Path, first: int, order: tuple[int | None, ...]) -> Iterator[Tensor]:
    """Yield the pictures from frame `first` on, by a jump to the key frame before where the clock allows it."""
    converter = VideoReformatter()
    if first > 0 and None not in order and len(set(order)) == len(order):
        with open_video(path) as (container, stream):
            container.seek(order[first], stream=stream, backward=True)
            frames = _decoded(container, stream, path)
            found = next((f for f in frames if f.pts is None or f.pts >= (order[first] or 0)), None)
            if found is not None and found.pts == order[first]:
                for frame in chain([found], frames):
                    yield to_picture(frame, converter, stream.sample_aspect_ratio)
                return
    with open_video(path) as (container, stream):
        for frame in islice(_decoded(container, stream, path), first, None):
            yield to_picture(frame, converter, stream.sample_aspect_ratio)


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    return (frame for _, frame in decode(container, stream, Faults(path, whole=True)))


@functools.lru_cache(64)
def _order(path: Path, _size: int, _changed: int) -> tuple[int | None, ...]:
    """Return the presentation time of every frame, in ticks, in the order in which they are shown."""
    with open_video(path) as (container, stream):
        packets = packets_of(container, stream, Faults(path))
        times = [p.pts for p in packets if p.size and not p.is_discard]
    return tuple(sorted(times, key=lambda t: (t is None, t)))
