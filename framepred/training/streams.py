"""Streams: many clips at once, each a chain of frames whose past is what the tokenizer itself gave back."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from framepred.tokenizer.image import scaled, to_uint8
from framepred.tokenizer.temporal_net import Coded, TemporalNet


@dataclass(frozen=True)
class Footage:
    """Episodes end to end on one device: frames uint8 (N, 3, H, W); features float (N, A + 1) of the action after each.

    The last of the features is 1 where the action is known. `first` int64 (N,) is where each frame's episode begins.
    `steps` int64 are the frames that have one before them; they are drawn by `odds`, which add up to 1.
    """

    frames: Tensor
    actions: Tensor
    first: Tensor
    steps: Tensor
    odds: Tensor

    @staticmethod
    def build(frames: Tensor, actions: Tensor, lengths: Tensor, weights: Tensor | None = None) -> "Footage":
        """Lay out episodes of these lengths (E,), each drawn by its weight (E,), else by its length."""
        starts = lengths.cumsum(0) - lengths
        first = starts.repeat_interleave(lengths)
        places = torch.arange(len(frames), device=frames.device)
        inside = places > first
        each = torch.ones(len(lengths)) if weights is None else weights / (lengths.cpu() - 1).clamp(min=1)
        odds = each.double().repeat_interleave(lengths.cpu())[inside.cpu()].cumsum(0)
        return Footage(frames, actions, first, places[inside], odds / odds[-1:])

    def action_rows(self, at: Tensor, since: Tensor, blind: Tensor, count: int) -> Tensor:
        """Return the last `count` actions before frames `at` (B,) → (B, count, A + 1), zeros where not given.

        Not given are those before frame `since` (B,), and all of a `blind` (B,) clip.
        """
        index = at[:, None] + torch.arange(-count, 0, device=at.device)
        given = (index >= since[:, None]) & ~blind[:, None]
        return self.actions[index.clamp(min=0)] * given[..., None]

    def pictures(self, at: Tensor, since: Tensor, count: int) -> Tensor:
        """Return the true `count` frames before frames `at` (B,), uint8 (B, count, 3, H, W); `since` is repeated."""
        index = at[:, None] + torch.arange(-count, 0, device=at.device)
        return self.frames[torch.maximum(index, since[:, None])]


class Streams(nn.Module):
    """B chains: `at` (B,) is the next frame of each, `pictures` uint8 (B, P, 3, H, W) what it is coded given.

    `codeless` (B,) chains are to go on as expected without codes. All are buffers, so that they are saved with the
    weights, and training resumes in the midst of each chain.
    """

    def __init__(self, footage: Footage, size: int, past: int, past_actions: int) -> None:
        super().__init__()
        self.footage, self.past_actions = footage, past_actions
        pictures = torch.zeros(size, past, *footage.frames.shape[1:], dtype=torch.uint8)
        for name, value in (
            ("at", torch.zeros(size, dtype=torch.int64)),
            ("since", torch.zeros(size, dtype=torch.int64)),
            ("blind", torch.zeros(size, dtype=torch.bool)),
            ("codeless", torch.zeros(size, dtype=torch.bool)),
            ("pictures", pictures),
        ):
            self.register_buffer(name, value.to(footage.frames.device))
        self.at: Tensor
        self.since: Tensor
        self.blind: Tensor
        self.codeless: Tensor
        self.pictures: Tensor

    def begin(self, which: Tensor, generator: torch.Generator) -> None:
        """Begin chains anew where `which` (B,); some know one frame, are blind to actions, or are `codeless`."""
        footage = self.footage
        place, fresh, blind, codeless = torch.rand(4, len(which), generator=generator, dtype=torch.float64)
        chosen = torch.searchsorted(footage.odds, place).clamp(max=len(footage.steps) - 1)
        draws = chosen, fresh < 0.25, blind < 0.15, codeless < 0.15
        chosen, alone, hidden, without = (x.to(self.at.device) for x in draws)
        drawn = footage.steps[chosen]
        since = torch.where(alone, drawn - 1, footage.first[drawn])
        self.at.copy_(torch.where(which, drawn, self.at))
        self.since.copy_(torch.where(which, since, self.since))
        self.blind.copy_(torch.where(which, hidden, self.blind))
        self.codeless.copy_(torch.where(which, without, self.codeless))
        true = footage.pictures(self.at, self.since, self.pictures.shape[1])
        self.pictures.copy_(torch.where(which[:, None, None, None, None], true, self.pictures))

    def batch(self, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return pictures and frames as float in [-1, 1], and the action rows, of some chains at present."""
        actions = self.footage.action_rows(self.at[rows], self.since[rows], self.blind[rows], self.past_actions)
        return scaled(self.pictures[rows]), actions, scaled(self.footage.frames[self.at[rows]])

    def advance(self, made: Tensor, restart: float, generator: torch.Generator) -> None:
        """Take in the frames uint8 (B, 3, H, W) given back; chains end with the episode or by chance `restart`."""
        first = self.footage.first
        self.pictures.copy_(torch.cat([self.pictures[:, 1:], made[:, None]], 1))
        following = self.at + 1
        inside = following.clamp(max=len(first) - 1)
        ended = (following >= len(first)) | (first[inside] != first[self.at])
        self.at.copy_(inside)
        chance = torch.rand(len(ended), generator=generator).to(ended.device)
        self.begin(ended | (chance < restart), generator)


def chains(
    net: TemporalNet, footage: Footage, starts: Tensor, frames: int, blind: Tensor
) -> Iterator[tuple[Tensor, Tensor, Coded]]:
    """Code the clips that begin at `starts` (M,): yield each frame and as it is given back, both uint8, and its codes.

    The first frame is coded given itself, the others given those given back; `blind` (M,) clips know no actions.
    """
    shape = net.shape
    pictures = footage.pictures(starts, starts, shape.past)
    for t in range(frames):
        at = starts + t
        rows, truth = footage.action_rows(at, starts, blind, shape.past_actions), footage.frames[at]
        with torch.autocast(at.device.type, torch.bfloat16, enabled=at.is_cuda):
            coded = net(scaled(pictures), rows, scaled(truth))
        made = to_uint8(coded.picture)
        yield truth, made, coded
        pictures = torch.cat([pictures[:, 1:], made[:, None]], 1)
