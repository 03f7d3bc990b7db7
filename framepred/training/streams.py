"""Streams: many clips at once, each a chain of frames whose past is what the tokenizer itself gave back."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Footage:
    """Episodes end to end on one device: frames uint8 (N, 3, H, W); features float (N, A) of the action after each.

    `first` int64 (N,) is where each frame's episode begins. `steps` int64 are the frames that have one before them.
    """

    frames: Tensor
    actions: Tensor
    first: Tensor
    steps: Tensor

    @staticmethod
    def build(frames: Tensor, actions: Tensor, lengths: Tensor) -> "Footage":
        """Lay out episodes of these lengths (E,)."""
        starts = lengths.cumsum(0) - lengths
        first = starts.repeat_interleave(lengths)
        places = torch.arange(len(frames), device=frames.device)
        return Footage(frames, actions, first, places[places > first])

    def action_rows(self, at: Tensor, since: Tensor, blind: Tensor, count: int) -> Tensor:
        """Return the last `count` actions before frames `at` (B,) → (B, count, A + 1), 1 at the end where given.

        Not given are those before frame `since` (B,), and all of a `blind` (B,) clip.
        """
        index = at[:, None] + torch.arange(-count, 0, device=at.device)
        given = (index >= since[:, None]) & ~blind[:, None]
        rows = self.actions[index.clamp(min=0)] * given[..., None]
        return torch.cat([rows, given[..., None].float()], -1)

    def pictures(self, at: Tensor, since: Tensor, count: int) -> Tensor:
        """Return the true `count` frames before frames `at` (B,), uint8 (B, count, 3, H, W); `since` is repeated."""
        index = at[:, None] + torch.arange(-count, 0, device=at.device)
        return self.frames[torch.maximum(index, since[:, None])]


class Streams:
    """B chains: `at` (B,) is the next frame of each, `pictures` (B, P, 3, H, W) uint8 what it is coded given."""

    def __init__(self, footage: Footage, size: int, past: int, past_actions: int, generator: torch.Generator) -> None:
        self.footage, self.past, self.past_actions, self.generator = footage, past, past_actions, generator
        device = footage.frames.device
        self.at, self.since = (torch.zeros(size, dtype=torch.int64, device=device) for _ in range(2))
        self.blind = torch.zeros(size, dtype=torch.bool, device=device)
        self.pictures = torch.zeros(size, past, *footage.frames.shape[1:], dtype=torch.uint8, device=device)
        self._begin(torch.ones_like(self.blind), 0.25, 0.15)

    def _chance(self, probability: float) -> Tensor:
        return torch.rand(len(self.at), generator=self.generator, device=self.at.device) < probability

    def _begin(self, which: Tensor, fresh: float, blind: float) -> None:
        """Begin chains anew where `which` (B,): some `fresh` with one frame known, some `blind` to actions."""
        steps = self.footage.steps
        drawn = steps[torch.randint(len(steps), which.shape, generator=self.generator, device=steps.device)]
        since = torch.where(self._chance(fresh), drawn - 1, self.footage.first[drawn])
        self.at, self.since = torch.where(which, drawn, self.at), torch.where(which, since, self.since)
        self.blind = torch.where(which, self._chance(blind), self.blind)
        true = self.footage.pictures(self.at, self.since, self.past)
        self.pictures = torch.where(which[:, None, None, None, None], true, self.pictures)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures and frames as float in [-1, 1] and the action rows of the present step."""
        actions = self.footage.action_rows(self.at, self.since, self.blind, self.past_actions)
        return scaled(self.pictures), actions, scaled(self.footage.frames[self.at])

    def advance(self, made: Tensor, restart: float) -> None:
        """Take in the float frames (B, 3, H, W) given back; chains end with the episode or by chance `restart`."""
        last = unscaled(made)[:, None]
        self.pictures = torch.cat([self.pictures[:, 1:], last], 1)
        following = self.at + 1
        inside = following.clamp(max=len(self.footage.first) - 1)
        ended = (following >= len(self.footage.first)) | (self.footage.first[inside] != self.footage.first[self.at])
        self.at = inside
        self._begin(ended | self._chance(restart), 0.25, 0.15)


def scaled(frames: Tensor) -> Tensor:
    """Frames uint8 → float32 in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1)


def unscaled(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] → uint8."""
    return frames.detach().float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8)


def nearness(made: Tensor, frames: Tensor) -> Tensor:
    """Squared plus a little absolute error of float frames in [-1, 1]."""
    error = (made - frames).float()
    return error.square().mean() + 0.1 * error.abs().mean()


def pooled(frames: Tensor) -> Tensor:
    """Frames at a quarter of their size."""
    return F.avg_pool2d(frames, 4)
