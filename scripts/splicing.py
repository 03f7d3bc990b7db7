"""Events spliced into real footage, to test what is to find them: pure functions of frames and actions."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Footage:
    """Frames (or their tokens) (T, …), actions (T, …), and the event that made each frame what it is not, by name.

    `events[t]` names what came between frame t - 1 and frame t; "" where frame t follows from its past.
    """

    frames: Tensor
    actions: Tensor
    events: tuple[str, ...]

    @staticmethod
    def plain(frames: Tensor, actions: Tensor) -> "Footage":
        """Footage as it was recorded; actions (T or T - 1, …), the last repeated where it has no outcome."""
        return Footage(frames, torch.cat([actions, actions[-1:]])[: len(frames)], ("",) * len(frames))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, stretch: slice) -> "Footage":
        return Footage(self.frames[stretch], self.actions[stretch], self.events[stretch])

    def marked(self, event: str, *frames: int) -> "Footage":
        """The same footage with `frames` named as what `event` made; those beyond its end are passed over."""
        return replace(self, events=tuple(event if t in frames else e for t, e in enumerate(self.events)))


def join(before: Footage, after: Footage, event: str) -> Footage:
    """Show `after` straight after `before`; its first frame is named as what `event` made."""
    joined = Footage(
        torch.cat([before.frames, after.frames]),
        torch.cat([before.actions, after.actions]),
        before.events + after.events,
    )
    return joined.marked(event, len(before))


def cut(footage: Footage, other: Footage, at: int) -> Footage:
    """Go on with `other` from frame `at`, its own frame `at` and its own actions."""
    return join(footage[:at], other[at:], "cut")


def teleport(footage: Footage, at: int, to: int) -> Footage:
    """Go on from frame `to` of the same footage where frame `at` should come: the same world, suddenly elsewhere."""
    return join(footage[:at], footage[to:], "teleport")


def reverse(footage: Footage, at: int, length: int) -> Footage:
    """Show `length` frames from `at` backwards, the actions as they were; the frame after them jumps back."""
    order = torch.arange(len(footage))
    order[at : at + length] = order[at : at + length].flip(0)
    return replace(footage, frames=footage.frames[order]).marked("reverse", *range(at, at + length + 1))


def change_action(footage: Footage, at: int, action: Tensor | int) -> Footage:
    """Say that `action` led to frame `at`, which shows what another did."""
    actions = footage.actions.clone()
    actions[at - 1] = action
    return replace(footage, actions=actions).marked("action", at)


def area_under_roc(events: Tensor, ordinary: Tensor) -> float:
    """The chance that a score of `events` (A,) exceeds one of `ordinary` (B,), ties counted half."""
    ordered = ordinary.sort().values
    below = torch.searchsorted(ordered, events, right=False).double()
    upto = torch.searchsorted(ordered, events, right=True).double()
    return float((below + upto).mean() / 2 / len(ordinary))
