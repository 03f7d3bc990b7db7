"""An open video → its frames in the order in which they are shown, and what was wrong with them."""

import heapq
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av

from framepred.errors import FramepredError, FramepredWarning
from framepred.video.clock import Stamp, say_rate
from framepred.video.container import frames_counted, says_when_shown, seconds_said

# Frames that may be shown before one that was decoded earlier: what H.264 and HEVC allow.
_MOST_REORDERED = 16
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
    codec: str = ""
    frames: int = 0
    packets_lost: int = 0
    corrupt: list[int] = field(default_factory=list)
    lost_near: list[int] = field(default_factory=list)
    clock: list[int] = field(default_factory=list)
    long: list[int] = field(default_factory=list)
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
        self.miss(self.frames)

    def miss(self, number: int) -> None:
        """Note that a frame is missing before the one of that number."""
        if number not in self.lost_near[-1:]:
            self.lost_near.append(number)
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
        if self.long and not missing:
            order = "; actions are matched by their order" if self.whole else ""
            lines.append(f"frames are not evenly spaced, some may be missing after {_numbers(self.long)}{order}")
        for line in lines:
            warnings.warn(FramepredWarning(f"{self.path}: {line}"), stacklevel=3)

    def _missing(self) -> str:
        """Say which frames are missing, if any."""
        why = f" ({self.error})" if self.error else ""
        if self.expected is not None and self.frames < self.expected:
            where = f", some are missing near {_numbers(self.lost_near)}" if self.lost_near else ""
            return f"{self.frames} of {self.expected} frames could be decoded{where}{why}"
        if self.lost_near:
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
    faults.codec = stream.codec_context.name
    tick = float(stream.time_base or 0)
    known = says_when_shown(container)
    sent, last = _Sent(known, stream.codec_context.has_b_frames), _End()
    for packet in packets_of(container, stream, faults):
        sent.add(packet)
        for frame in decode_packet(packet, faults):
            sent.take(frame, faults)
            if frame.is_corrupt:
                faults.corrupt.append(faults.frames)
            faults.frames += 1
            shown, decoded = (None if t is None else t * tick for t in (frame.pts, frame.dts))
            stamp = Stamp(shown, decoded, (frame.duration or 0) * tick)
            last.note(stamp)
            yield stamp, frame
    if not faults.frames:
        animated = faults.path.suffix.lower() == ".webp"
        hint = "FFmpeg reads no animated WebP, give a .gif" if animated else "give a complete video file"
        why = f" ({faults.error})" if faults.error else ""
        raise FramepredError(f"no frame of {faults.path} could be decoded{why}: {hint}")
    sent.settle(faults)
    faults.expected = frames_counted(container, stream, fps)
    last.check(seconds_said(container, stream), faults)
    swallowed = sent.count - max(faults.packets_lost, sent.lost) - faults.frames
    if faults.expected is None and 0 < swallowed <= _MOST_HELD and faults.codec != "vp8":
        # At the end, a decoder of several threads does not say what it could not decode. VP8 has frames to hide.
        faults.lose("at its end")
    faults.check_whole()


class _Sent:
    """The presentation times of packets whose frames have not come: frames come in the order of these times.

    What a packet should have brought is lost, without an error, when later frames come. Some writers give frames that
    are `reordered` other times, as those of their decoding: where a frame comes late after all, nothing is known. Where
    the clock starts over, another part begins.
    """

    def __init__(self, known: bool, reordered: bool) -> None:
        self.count, self.lost, self._known = 0, 0, known
        self._patience = _MOST_REORDERED if reordered else 0
        self._parts = deque([list[int]()])
        self._late = deque[tuple[int, int]]()
        self._decoded: int | None = None

    def add(self, packet: Any) -> None:
        """Note a packet that is sent to the decoder."""
        if is_end(packet) or packet.is_discard:
            return
        self.count += 1
        if None not in (packet.dts, self._decoded) and packet.dts < self._decoded:
            self._parts.append([])
        self._decoded = self._decoded if packet.dts is None else packet.dts
        if self._known and packet.pts is not None:
            heapq.heappush(self._parts[-1], packet.pts)

    def take(self, frame: Any, faults: Faults) -> None:
        """Note a frame that came, and the packets before it that brought none."""
        if any(time == frame.pts for time, _ in self._late):
            self._known = False
            self._late.clear()
            self._parts = deque([[]])
            return
        late = list[int]()
        while len(self._parts) > 1 and frame.pts not in self._parts[0] and frame.pts in self._parts[1]:
            late += self._parts.popleft()
        waiting = self._parts[0]
        if frame.pts not in waiting:
            return
        while waiting and waiting[0] <= frame.pts:
            late.append(heapq.heappop(waiting))
        # VP8 has frames to hide, and the fields of one frame may be two packets.
        if not frame.interlaced_frame and faults.codec != "vp8":
            self._late += [(time, faults.frames) for time in late if time != frame.pts]
        self.settle(faults, self._patience)

    def settle(self, faults: Faults, patience: int = 0) -> None:
        """Note as lost what has not come in the last `patience` frames."""
        while self._late and faults.frames - self._late[0][1] >= patience:
            self.lost += 1
            faults.miss(self._late.popleft()[1])


class _End:
    """When the last frame ends, in seconds of the file's clock, and the longest step between two frames."""

    def __init__(self) -> None:
        self._shown: float | None = None
        self._end, self._longest = 0.0, 0.5

    def note(self, stamp: Stamp) -> None:
        """Note the next frame."""
        if stamp.shown is None:
            return
        step = abs(stamp.shown - self._shown) if self._shown is not None else 0.0
        self._shown, self._longest = stamp.shown, max(self._longest, 2 * step, 2 * stamp.lasts)
        self._end = max(self._end, stamp.shown + stamp.lasts)

    def check(self, said: float | None, faults: Faults) -> None:
        """Note where the file breaks off before the end that its header says."""
        if said is not None and self._shown is not None and said - self._end > self._longest:
            faults.note("breaks off", f"it breaks off after {self._end:.6g} of {said:.6g} s: what is there is read")


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
