"""Training frames of tokenizers: single frames, or clips of consecutive frames."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.folder import VideoFile
from framepred.training.windows import step_generator


@dataclass(frozen=True)
class Frames:
    """Frames uint8 (T, 3, H, W) of videos: `runs` are the lengths of consecutive parts, in order.

    A clip may begin at `starts` int64 (n,); `groups` names the source of each.
    """

    frames: Tensor
    runs: tuple[int, ...]
    starts: Tensor
    groups: tuple[str, ...]

    def clips(self, index: Tensor, length: int) -> Tensor:
        """Return the clips that begin at `starts[index]`, uint8 (B, length · 3, H, W): frames as channels."""
        return self.frames[self.starts[index][:, None] + torch.arange(length)].flatten(1, 2)


def sample_frames(videos: Sequence[VideoFile], size: tuple[int, int], most: int, length: int, lenient: bool) -> Frames:
    """Read up to `most` frames for clips of `length`; with 1, the frames of a video are one run, whatever is left out.

    Sources take turns, so that each is there; a video longer than its share is read in parts: every so many
    single frames, or stretches of `length`² frames. A bad file is skipped with a warning if `lenient`.
    """
    turns: dict[str, int] = {}
    order = []
    generator = step_generator(0, 3)
    for i in torch.randperm(len(videos), generator=generator).tolist():
        source = videos[i].source
        order.append((turns.get(source, 0), i))
        turns[source] = turns.get(source, 0) + 1
    share = max(256, most // max(1, len(videos)))
    parts, runs, starts, groups, total = [], list[int](), list[Tensor](), list[str](), 0
    for _, i in sorted(order):
        if total >= most:
            break
        kept: list[Tensor] = []
        try:
            stride = max(1, (videos[i].info().num_frames or 0) // share)
            seen = 0
            for chunk in videos[i].stream(size, None):
                place = torch.arange(seen, seen + len(chunk))
                seen += len(chunk)
                chosen = place // length**2 % stride == 0
                parts.append(chunk[chosen].clone())
                kept.append(place[chosen])
        except FramepredError as error:
            if not lenient:
                raise
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
        places = torch.cat(kept) if kept else torch.empty(0, dtype=torch.int64)
        breaks = (places.diff() > 1).nonzero().flatten() + 1 if length > 1 else torch.empty(0, dtype=torch.int64)
        for run in places.tensor_split(breaks) if len(places) else ():
            first = torch.arange(total, total + max(0, len(run) - length + 1))
            runs.append(len(run))
            starts.append(first)
            groups += [videos[i].source] * len(first)
            total += len(run)
    frames = torch.cat(parts) if parts else torch.empty(0, 3, *size, dtype=torch.uint8)
    begins = torch.cat(starts) if starts else torch.empty(0, dtype=torch.int64)
    return Frames(frames, tuple(runs), begins, tuple(groups))
