"""Training frames of tokenizers."""

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
    """Frames uint8 (T, 3, H, W) of videos, of which `runs` are the lengths; `groups` names the source of each frame."""

    frames: Tensor
    runs: tuple[int, ...]
    groups: tuple[str, ...]


def sample_frames(videos: Sequence[VideoFile], size: tuple[int, int], most: int, lenient: bool) -> Frames:
    """Read up to `most` frames; of a video longer than its share, every so many.

    Sources take turns, so that each is there. A bad file is skipped with a warning if `lenient`.
    """
    share = max(256, most // max(1, len(videos)))
    parts, runs, groups = list[Tensor](), list[int](), list[str]()
    for video in in_turns(videos):
        if sum(runs) >= most:
            break
        seen = kept = 0
        try:
            stride = max(1, (video.info().num_frames or 0) // share)
            for chunk in video.stream(size, None):
                parts.append(chunk[-seen % stride :: stride].clone())
                seen, kept = seen + len(chunk), kept + len(parts[-1])
        except FramepredError as error:
            if not lenient:
                raise
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
        runs.append(kept)
        groups += [video.source] * kept
    frames = torch.cat(parts) if parts else torch.empty(0, 3, *size, dtype=torch.uint8)
    return Frames(frames, tuple(runs), tuple(groups))


def in_turns(videos: Sequence[VideoFile]) -> list[VideoFile]:
    """Return videos in random order, one of each source after the other."""
    turns: dict[str, int] = {}
    order = []
    for i in torch.randperm(len(videos), generator=step_generator(0, 3)).tolist():
        source = videos[i].source
        order.append((turns.get(source, 0), i))
        turns[source] = turns.get(source, 0) + 1
    return [videos[i] for _, i in sorted(order)]
