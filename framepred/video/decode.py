"""An open video → its frames in the order in which they are shown, and what was wrong with them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from framepred.errors import FramepredError, FramepredWarning
from framepred.video.clock import Stamp, say_rate
from framepred.video.container import frames_counted

# A broken decoder may never come to its end.
_MOST_ERRORS = 10_000
# Threads hold back no more frames than this.
_MOST_HELD = 32


@dataclass
class Faults:
    """What was wrong with the video at `path` so far: numbers of frames, counted from 0, and words about it, by kind.

    A frame that is missing is an error where the video must be `whole`.
    """

    path: Path
    whole: bool = False
    frames: int = 0
    packets_lost: int = 0
    corrupt: list[int] = field(default_factory=list)
    lost_near: list[int] = field(default_factory=list)
    clock: list[int] = field(default_factory=list)
    expected: int | None = None
    error: str = ""
    seen: dict[str, str] = field(default_factory=dict)

    def note(self, kind: str, words: str) -> None:
        """Keep the first words that are said of a kind."""
        self.seen.setdefault(kind, words)

    def note_still(self, seconds: float) -> None:
        """Note a picture that is shown for too long to be repeated."""
        self.note(
            "still", f"a picture is shown for {seconds:,.0f} s, too long to repeat it at this rate: it is one frame"
        )

    def note_slow(self, own: float, wanted: float) -> None:
        """Note that frames of a slow video are not resampled."""
        repeated = f"each would be repeated {wanted / own:,.0f} times"
        self.note("slow", f"{say_rate(own)} is not resampled to {say_rate(wanted)}: {repeated}")

    def lose(self, error: str) -> None:
        """Note a packet that cannot be decoded."""
        self.error = error
        self.packets_lost += 1
        if self.frames not in self.lost_near[-1:]:
            self.lost_near.append(self.frames)
        self.check_whole()

    def check_whole(self) -> None:
        """Raise FramepredError where a frame is missing and none may be."""
        missing = self._missing()
        if missing and self.whole:
            raise self.unmatched(missing)

    def unmatched(self, missing: str) -> FramepredError:
        """Return the error that frames which are missing are where actions belong to them."""
        return FramepredError(
            f"{self.path}: {missing}, so its actions cannot be matched to its frames: give a video that is not damaged"
        )

    def warn(self) -> None:
        """Warn of all that was wrong."""
        lines = list(self.seen.values())
        if missing := self._missing():
            lines.append(f"{missing}; the others are read")
        if self.corrupt:
            lines.append(f"damaged, the decoder made up parts of {_numbers(self.corrupt)}")
        if self.clock:
            lines.append(f"the clock starts over at {_numbers(self.clock)}; time goes on from the frame before")
        for line in lines:
            warnings.warn(FramepredWarning(f"{self.path}: {line}"), stacklevel=3)

    def _missing(self) -> str:
        """Say which frames are missing, if any."""
        why = f" ({self.error})" if self.error else ""
        if self.expected is not None and self.frames < self.expected:
            where = f", some are missing near {_numbers(self.lost_near)}" if self.lost_near else ""
            return f"{self.frames} of {self.expected} frames could be decoded{where}{why}"
        if self.packets_lost:
            return f"frames are missing near {_numbers(self.lost_near)}{why}"
        return f"it cannot be read after frame {self.frames - 1}{why}" if self.error else ""


def _numbers(frames: list[int]) -> str:
    """List frames, the first ten in full."""
    shown = ", ".join(map(str, frames[:10]))
    more = f" and {len(frames) - 10} more" if len(frames) > 10 else ""
    return f"frame{'s' if len(frames) > 1 else ''} {shown}{more}"


def decode(container: Any, stream: Any, faults: Faults, fps: float | None = None) -> Iterator[tuple[Stamp, Any]]:
    """Yield (stamp, FFmpeg's frame); a packet that cannot be decoded loses its own frames, not the rest.

    `fps` is the video's rate, where that is known. What is wrong is noted in `faults`. Raises FramepredError where not
    one frame can be decoded.
    """
    tick, sent = float(stream.time_base or 0), 0
    for packet in packets_of(container, stream, faults):
        sent += not (is_end(packet) or packet.is_discard)
        for frame in decode_packet(packet, faults):
            if frame.is_corrupt:
                faults.corrupt.append(faults.frames)
            faults.frames += 1
            shown, decoded = (None if t is None else t * tick for t in (frame.pts, frame.dts))
            yield Stamp(shown, decoded, (frame.duration or 0) * tick), frame
    if not faults.frames:
        animated = faults.path.suffix.lower() == ".webp"
        hint = "FFmpeg reads no animated WebP, give a .gif" if animated else "give a complete video file"
        why = f" ({faults.error})" if faults.error else ""
        raise FramepredError(f"no frame of {faults.path} could be decoded{why}: {hint}")
    faults.expected = frames_counted(container, stream, fps)
    swallowed = sent - faults.packets_lost - faults.frames
    if faults.expected is None and 0 < swallowed <= _MOST_HELD and stream.codec_context.name != "vp8":
        # At the end, a decoder of several threads does not say what it could not decode. VP8 has frames to hide.
        faults.lose("at its end")
    faults.check_whole()


def packets_of(container: Any, stream: Any, faults: Faults) -> Iterator[Any]:
    """Yield a stream's packets, the last one empty, up to where the file cannot be read."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError as error:
        faults.error = error.strerror or str(error)


def is_end(packet: Any) -> bool:
    """Say whether a packet is the empty one after the last."""
    return not packet.size and packet.pts is None and packet.dts is None


def decode_packet(packet: Any, faults: Faults) -> list[Any]:
    """Decode a packet; the last one, which is empty, brings the frames that the decoder still holds."""
    while True:
        try:
            return list(packet.decode())
        except av.error.EOFError:
            return []
        except av.error.FFmpegError as error:
            faults.lose(error.strerror or str(error))
            if not is_end(packet) or faults.packets_lost > _MOST_ERRORS:
                return []
