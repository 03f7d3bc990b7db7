"""Evaluation clips: a SOURCE → clips of fixed length in order, one video in memory at a time."""

import json
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from framepred.config.frame_size import Fit, FrameSize, fit_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.evaluation.protocol import Protocol
from framepred.sources.contract import StoredEpisode
from framepred.sources.episode import check_action_count
from framepred.sources.find import Address, find_episodes
from framepred.tokens.keys import read_keys
from framepred.tokens.store import TokenEpisode, check_made_by, is_store, other_rate_of_tokens, read_store
from framepred.world.footage import other_rate

Alteration = Literal["mirrored", "reversed", "skipped"]
ALTERATIONS: tuple[Alteration, ...] = get_args(Alteration)


@dataclass(frozen=True)
class EvalClip:
    """A clip of context + horizon frames: uint8 (T, 3, H, W), or their tokens int32 where it is from a store.

    `actions` (T - 1) as in an Episode, None where there are none.
    """

    name: str
    frames: Tensor | None
    tokens: Tensor | None
    actions: Tensor | None
    fps: float


@dataclass(frozen=True)
class Group:
    """Clips that are scored together: a name, the SOURCE and, for altered dynamics, the kind of alteration."""

    name: str
    source: str
    members: tuple[StoredEpisode | TokenEpisode, ...]
    alteration: Alteration | None = None


def make_groups(
    sources: Iterable[str],
    alterations: Iterable[Alteration],
    protocol: Protocol,
    tokenizer_sha256: str,
    action_names: tuple[str, ...] | None,
    fit: Fit = "crop",
) -> list[Group]:
    """Make a group of each `SOURCE` or `NAME=SOURCE`, and one of the first source for each alteration.

    Raises FramepredError for a token store that has no pixels to be scored, or another tokenizer's tokens
    or another fit than the run's.
    """
    groups: list[Group] = []
    for given in sources:
        name, equals, source = given.partition("=")
        if not equals or Path(given).exists() or Address.parse(given):
            path = Path(given).resolve()
            name, source = path.stem if path.is_file() else path.name, given
        if name in [g.name for g in groups]:
            raise FramepredError(f"two sources are called {name!r}: name them apart, NAME=SOURCE")
        members: tuple[StoredEpisode | TokenEpisode, ...]
        if is_store(source):
            if protocol.rollout:
                raise FramepredError(
                    f"{source} is a token store, which has no pixels to score: give the videos, "
                    "or a teacher-forced protocol (--set rollout=false)"
                )
            check_made_by(source, tokenizer_sha256, fit)
            members = tuple(read_store(source, action_names))
        else:
            members = tuple(video.ordered(action_names) for video in find_episodes([source]))
        groups.append(Group(name, source, members))
    first = groups[0]
    altered = [Group(f"{first.name}, {kind}", first.source, first.members, kind) for kind in alterations]
    if altered and first.members and isinstance(first.members[0], TokenEpisode):
        raise FramepredError(f"{first.source} is a token store, whose frames cannot be altered: give the videos")
    return groups + altered


def known_members(group: Group, run: Path) -> list[str]:
    """Return the names of a group's episodes that a run was trained on, as far as its own token store tells.

    Episodes that its training held out are left out, where it says which.
    """
    if not is_store(run / "tokens"):
        return []
    held = _held_out(run / "start.json")
    known = {row.content for row in read_keys(run / "tokens") if row.source not in held} - {""}
    return [member.name for member in group.members if _content(member) in known]


def _held_out(file: Path) -> set[str]:
    """Return where the episodes are that a training held out whole; none where it did not say."""
    try:
        return {held["key"] for held in json.loads(file.read_text())["held_out"] if not held["first"]}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _content(member: StoredEpisode | TokenEpisode) -> str:
    """Return what an episode's frames are known by; nothing where it cannot be read, which is said when it is."""
    try:
        return member.content
    except FramepredError:
        return ""


def read_clips(group: Group, protocol: Protocol, size: tuple[int, int], fps: float) -> Iterator[tuple[int, EvalClip]]:
    """Yield (member, clip) in order; videos that cannot be read or are too short are skipped with a warning.

    `size` (height, width) and `fps` are the run's, used where the protocol sets none; the fit is always the run's.
    """
    length = protocol.context + protocol.horizon
    span = 2 * length - 1 if group.alteration == "skipped" else length
    wanted, wanted_size = protocol.fps or fps, FrameSize(protocol.size, fit_of(size)) if any(protocol.size) else size
    short, found, warned = 0, 0, False
    for index, member in enumerate(group.members):
        made = 0
        try:
            if isinstance(member, TokenEpisode):
                message = other_rate_of_tokens(member, wanted)
                clips = _cut_tokens(member, protocol, span)
            else:
                rate = member.resampled_to(wanted)
                message = other_rate(member, wanted, rate)
                clips = _cut_video(member, protocol, span, wanted_size, rate)
            if message and not warned:
                warnings.warn(FramepredWarning(f"{message}; so are others of another rate"), stacklevel=2)
                warned = True
            for clip in clips:
                yield index, alter(clip, group.alteration)
                made, found = made + 1, found + 1
                if found == protocol.max_clips:
                    return
        except FramepredError as error:
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
            continue
        short += not made
    if short:
        least = protocol.start + span
        message = f"{group.name}: {short} of {len(group.members)} are shorter than {least} frames: skipped"
        warnings.warn(FramepredWarning(message), stacklevel=2)
    if not found:
        raise FramepredError(
            f"{group.source} has no clip of {protocol.start + span} frames (start + context + horizon"
            + (", twice as many to skip)" if group.alteration == "skipped" else ")")
            + ": give longer videos or a smaller --horizon"
        )


def _cut_video(
    video: StoredEpisode, protocol: Protocol, span: int, size: tuple[int, int], fps: float | None
) -> Iterator[EvalClip]:
    actions, _ = video.actions() or (None, ())
    if actions is not None:
        video.check_rows(actions, str(video.actions_from))
    rate = fps or video.info().fps
    held, first, start = torch.empty(0), 0, protocol.start
    for chunk in video.stream(size, fps, min(64, start + span)):
        held = torch.cat([held, chunk]) if len(held) else chunk
        while len(held) >= start - first + span:
            yield _clip(video.name, start, span, held[start - first : start - first + span], None, actions, rate)
            if not protocol.stride:
                return
            start += protocol.stride
        passed = min(start - first, len(held))
        held, first = held[passed:], first + passed
    check_action_count(actions, first + len(held), str(video.actions_from))


def _cut_tokens(episode: TokenEpisode, protocol: Protocol, span: int) -> Iterator[EvalClip]:
    for start in range(protocol.start, len(episode.tokens) - span + 1, protocol.stride or len(episode.tokens)):
        yield _clip(episode.name, start, span, None, episode.tokens[start : start + span], episode.actions, episode.fps)


def _clip(
    name: str, start: int, length: int, frames: Tensor | None, tokens: Tensor | None, actions: Tensor | None, fps: float
) -> EvalClip:
    taken = None
    if actions is not None:
        taken = actions[start : start + length - 1]
        if len(taken) < length - 1:
            raise FramepredError(
                f"{name} has {len(actions)} actions, {start + length - 1} are needed: give one row a frame"
            )
    return EvalClip(f"{name}@{start}", frames, tokens, taken, fps)


def other_actions(group: Group, member: int, protocol: Protocol) -> Tensor | None:
    """Return the actions (T - 1) of another video, half the group further on; None where no other video has actions."""
    length = protocol.context + protocol.horizon
    span = 2 * length - 1 if group.alteration == "skipped" else length
    count = len(group.members)
    for i in range(count - 1):
        other = group.members[(member + max(1, count // 2) + i) % count]
        if other is group.members[member]:
            continue
        try:
            actions = other.actions if isinstance(other, TokenEpisode) else (other.actions() or (None,))[0]
        except FramepredError:
            continue
        if actions is not None and len(actions) >= protocol.start + span - 1:
            taken = actions[protocol.start : protocol.start + span - 1]
            return _altered_actions(taken, group.alteration)
    return None


def _altered_actions(actions: Tensor, kind: Alteration | None) -> Tensor:
    if kind == "reversed":
        return actions.flip(0)
    return actions[::2] if kind == "skipped" else actions


def alter(clip: EvalClip, kind: Alteration | None) -> EvalClip:
    """Return a clip of other dynamics: mirrored left to right, reversed in time, or every second frame.

    Actions are not altered: in a mirrored clip a left turn looks like a right turn. A skipped clip keeps the first
    of each two.
    """
    if kind is None or clip.frames is None:
        return clip
    frames = {"mirrored": clip.frames.flip(-1), "reversed": clip.frames.flip(0), "skipped": clip.frames[::2]}[kind]
    actions = None if clip.actions is None else _altered_actions(clip.actions, kind)
    return EvalClip(f"{clip.name}, {kind}", frames, None, actions, clip.fps)
