"""Training frames of tokenizers."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions import join_names, kind_of, order_actions
from framepred.sources.contract import StoredEpisode
from framepred.training.windows import step_generator


@dataclass(frozen=True)
class Frames:
    """Frames uint8 (T, 3, H, W) of videos, of which `runs` are the lengths; `groups` names the source of each frame."""

    frames: Tensor
    runs: tuple[int, ...]
    groups: tuple[str, ...]


def sample_frames(videos: Sequence[StoredEpisode], size: tuple[int, int], most: int, lenient: bool) -> Frames:
    """Read up to `most` frames; of a video longer than its share, every so many.

    Sources take turns, so that each is there. A bad file is skipped with a warning if `lenient`.
    """
    share = max(256, most // max(1, len(videos)))
    parts, runs, groups = list[Tensor](), list[int](), list[str]()
    for video in in_turns(videos):
        left = most - sum(runs)
        if left <= 0:
            break
        try:
            stride = max(1, (video.info().num_frames or 0) // share)
            parts.append(_every_so_many(video.stream(size, None), stride, min(left, 2 * share)))
        except FramepredError as error:
            if not lenient:
                raise
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
            continue
        runs.append(len(parts[-1]))
        groups += [video.source] * runs[-1]
    frames = torch.cat(parts) if parts else torch.empty(0, 3, *size, dtype=torch.uint8)
    return Frames(frames, tuple(runs), tuple(groups))


def _every_so_many(chunks: Iterator[Tensor], stride: int, most: int) -> Tensor:
    """Return every `stride`-th frame; where that would be more than `most`, fewer, as evenly spread."""
    parts, seen = list[Tensor](), 0
    for chunk in chunks:
        parts.append(chunk[-seen % stride :: stride].clone())
        seen += len(chunk)
        # A file's header may count fewer frames than there are, or none.
        while sum(map(len, parts)) > most:
            parts, stride = [torch.cat(parts)[::2].clone()], 2 * stride
    return torch.cat(parts)


def in_turns(videos: Sequence[StoredEpisode]) -> list[StoredEpisode]:
    """Return videos in random order, one of each source after the other."""
    turns: dict[str, int] = {}
    order = []
    for i in torch.randperm(len(videos), generator=step_generator(0, 3)).tolist():
        source = videos[i].source
        order.append((turns.get(source, 0), i))
        turns[source] = turns.get(source, 0) + 1
    return [videos[i] for _, i in sorted(order)]


@dataclass(frozen=True)
class Episodes:
    """Whole episodes end to end: frames uint8 (N, 3, H, W), their `lengths`, and the source of each in `groups`.

    `actions` has the action after each frame, int64 (N,), -1 where none is known, or float32 (N, D), NaN there; None
    where no episode has any.
    """

    frames: Tensor
    lengths: tuple[int, ...]
    groups: tuple[str, ...]
    actions: Tensor | None


def read_episodes(
    videos: Sequence[StoredEpisode], size: tuple[int, int], fps: float | None, most: int, lenient: bool
) -> Episodes:
    """Read up to `most` frames with their actions; of a video longer than its share, the beginning.

    Sources take turns, so that each is there. A bad file is skipped with a warning if `lenient`.
    """
    share = max(256, most // max(1, len(videos)))
    parts, actions, groups = list[Tensor](), list[Tensor | None](), list[str]()
    for video in in_turns(videos):
        if sum(map(len, parts)) >= most:
            break
        try:
            episode = video.read(size, fps, share)
        except FramepredError as error:
            if not lenient:
                raise
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
            continue
        parts.append(episode.frames)
        actions.append(episode.actions)
        groups.append(video.source)
    lengths = tuple(map(len, parts))
    frames = torch.cat(parts) if parts else torch.empty(0, 3, *size, dtype=torch.uint8)
    return Episodes(frames, lengths, tuple(groups), _after_each_frame(actions, lengths))


def _after_each_frame(actions: Sequence[Tensor | None], lengths: Sequence[int]) -> Tensor | None:
    """Join the actions of episodes; what is not known is -1 or NaN."""
    known = next((a for a in actions if a is not None), None)
    if known is None:
        return None
    rows = []
    for given, length in zip(actions, lengths, strict=True):
        row = known.new_full((length, *known.shape[1:]), torch.nan if known.is_floating_point() else -1)
        if given is not None:
            row[: len(given)] = given[:length]
        rows.append(row)
    return torch.cat(rows)


@dataclass(frozen=True)
class Actions:
    """The actions that videos have: their `names`, and the `size` numbers that tell one (one-hot if not `continuous`).

    `mean` and `scale` float32 (size,) are those of continuous actions.
    """

    names: tuple[str, ...] | None = None
    size: int = 0
    continuous: bool = False
    mean: Tensor | None = None
    scale: Tensor | None = None


def known_actions(videos: Sequence[StoredEpisode]) -> Actions:
    """Return the actions of videos; those without any do not matter.

    Raises FramepredError where some are discrete and some are not, or where their names differ.
    """
    loaded = [(found, str(video.actions_from)) for video in videos if (found := video.ordered(None).actions())]
    if not loaded:
        return Actions()
    _, names = join_names((kind_of(actions[0]), actions[1], where) for actions, where in loaded)
    joined = torch.cat([order_actions(*actions, names, where) for actions, where in loaded])
    if not joined.is_floating_point():
        return Actions(names, max(int(joined.max()) + 1, len(names.values)))
    # In float64: squares of 1e30 are too large for float32, those of 1e-30 too small.
    wide = joined.double()
    mean, deviation = wide.mean(0), wide.std(0, correction=0).float()
    # What is always the same has a deviation that is nothing but rounding.
    varies = deviation > wide.abs().amax(0) * 1e-7
    scale = torch.where(varies, deviation.clamp(min=torch.finfo(torch.float32).tiny), 1.0)
    return Actions(names, joined.shape[1], True, mean.float(), scale)
