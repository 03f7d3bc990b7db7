"""The network of the temporal autoencoder: it draws a frame from the pictures before it, the actions and a few codes.

The decoder moves the last two pictures and draws over what no moving explains; codes of all zeros say "as expected".
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.tokenizer.temporal_layers import ContextNet, Grid, Stage, move


@dataclass(frozen=True)
class TemporalShape:
    """The shape of a temporal autoencoder.

    `action_size` numbers tell an action (one-hot where it is not `continuous`), 0 for none; `action_names`, where they
    are known, are its columns in order. `widths` are the channels at a half, a quarter and an eighth of the frame's
    size. `levels` are the scales of a frame's codes, all odd, and `context_levels` those of its context tokens; both
    stand in a grid of a sixteenth of the frame's size.
    """

    frame_size: tuple[int, int] = (64, 64)
    action_size: int = 0
    continuous: bool = False
    widths: tuple[int, int, int] = (64, 128, 144)
    blocks: int = 2
    condition: int = 128
    levels: tuple[int, ...] = (5, 5, 5, 3)
    context_levels: tuple[int, ...] = (8, 8, 6, 5)
    past: int = 3
    past_actions: int = 4
    action_names: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        return self.frame_size[0] // 16, self.frame_size[1] // 16


@dataclass(frozen=True)
class Past:
    """What the pictures before a frame and the actions tell: features, the finest first, and the condition (B, C)."""

    pictures: Tensor
    features: list[Tensor]
    condition: Tensor


def _scale(layer: nn.Module, scale: float) -> None:
    """Make a convolution's outputs `scale` times as large as its inputs, without a bias."""
    assert isinstance(layer, nn.Conv2d)
    nn.init.normal_(layer.weight, std=scale / layer.weight[0].numel() ** 0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class TemporalNet(nn.Module):
    """Pictures are float (B, P, 3, H, W) in [-1, 1], the oldest first.

    Actions are float (B, A, action_size + 1), the last of a row is 1 where the action is given.
    """

    def __init__(self, shape: TemporalShape) -> None:
        super().__init__()
        self.shape = shape
        fine, middle, coarse = shape.widths
        cond, blocks = shape.condition, shape.blocks
        self.codes = Grid(shape.levels)
        self.act = nn.Sequential(
            nn.Linear(shape.past_actions * (shape.action_size + 1), cond), nn.SiLU(), nn.Linear(cond, cond), nn.SiLU()
        )
        self.look = nn.ModuleList(
            [
                Stage(nn.Conv2d(12 * shape.past, fine, 3, padding=1), fine, blocks, cond),
                Stage(nn.Conv2d(fine, middle, 2, stride=2), middle, blocks, cond),
                Stage(nn.Conv2d(middle, coarse, 2, stride=2), coarse, blocks, cond),
            ]
        )
        self.see = nn.ModuleList(
            [
                Stage(nn.Conv2d(36, fine, 3, padding=1), fine, 1, cond),
                Stage(nn.Conv2d(fine, middle, 2, stride=2), middle, 1, cond),
                Stage(nn.Conv2d(middle, coarse, 2, stride=2), coarse, blocks, cond),
            ]
        )
        # Not normed, what is seen of the past grows until the code is a whisper beside it, and collapses.
        self.see_norm, self.draw_norm = nn.GroupNorm(8, coarse), nn.GroupNorm(8, coarse)
        self.to_code = nn.Sequential(
            nn.Conv2d(coarse, coarse, 2, stride=2), nn.GroupNorm(8, coarse), nn.SiLU(),
            nn.Conv2d(coarse, self.codes.dim, 3, padding=1),
        )  # fmt: skip
        self.from_code = nn.Conv2d(self.codes.dim, coarse, 3, padding=1, bias=False)
        _scale(self.from_code, 1.5)
        _scale(self.to_code[-1], 1.0)
        self.draw = nn.ModuleList(
            [
                Stage(nn.Identity(), coarse, blocks + 1, cond),
                Stage(nn.Sequential(nn.Conv2d(coarse, 4 * middle, 1), nn.PixelShuffle(2)), middle, blocks, cond),
                Stage(nn.Sequential(nn.Conv2d(middle, 4 * fine, 1), nn.PixelShuffle(2)), fine, blocks, cond),
            ]
        )
        self.paint = nn.Sequential(nn.GroupNorm(8, fine), nn.SiLU(), nn.Conv2d(fine, 40, 3, padding=1))
        _scale(self.paint[-1], 0.0)
        self.context = ContextNet(coarse, middle, cond, shape.grid, shape.levels, Grid(shape.context_levels))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def past(self, pictures: Tensor, actions: Tensor) -> Past:
        """Read the pictures before a frame and the actions up to it."""
        condition = self.act(actions.flatten(1))
        x = F.pixel_unshuffle(pictures.flatten(1, 2), 2).contiguous(memory_format=torch.channels_last)
        features = []
        for stage in self.look:
            x = stage(x, condition)
            features.append(x)
        return Past(pictures, features, condition)

    def picture(self, past: Past, code: Tensor | None) -> Tensor:
        """Codes (B, D, h, w), or None for all zeros → the next frames, float32 (B, 3, H, W)."""
        x = self.draw_norm(past.features[-1])
        if code is not None:
            x = x + F.interpolate(self.from_code(code.to(x.dtype)), scale_factor=2.0)
        skips = None, past.features[1], past.features[0]
        for stage, skip in zip(self.draw, skips, strict=True):
            x = stage(x, past.condition, skip)
        return self._painted(past.pictures, x)

    def _painted(self, pictures: Tensor, x: Tensor) -> Tensor:
        flows, masks, colour = F.pixel_shuffle(self.paint(x), 2).float().split((4, 3, 3), 1)
        first, second = (0.5 * flows).chunk(2, 1)
        share = masks.add(torch.tensor([3.0, 0.0, 0.0], device=x.device).view(1, 3, 1, 1)).softmax(1)
        moved = move(pictures[:, -1].float(), first), move(pictures[:, -2].float(), second)
        return share[:, :1] * moved[0] + share[:, 1:2] * moved[1] + share[:, 2:] * colour

    def code(self, past: Past, expected: Tensor, frames: Tensor) -> Tensor:
        """Frames (B, 3, H, W), given what was `expected` (B, 3, H, W) without a code → values (B, D, h, w)."""
        told = torch.cat([frames, expected, frames - expected], 1)
        x = F.pixel_unshuffle(told, 2).contiguous(memory_format=torch.channels_last)
        for stage in self.see:
            x = stage(x, past.condition)
        return self.to_code(x + self.see_norm(past.features[-1]))

    def context_tokens(self, past: Past) -> tuple[Tensor, Tensor]:
        """Context codes float32 (B, D, h, w) and ids int64 (B, h, w) of what the past shows."""
        # What the features are for is to draw: context tokens take what there is.
        return self.context.tokens(past.features[-1].detach(), past.condition.detach())

    def forward(self, pictures: Tensor, actions: Tensor, frames: Tensor) -> "Coded":
        """Code frames (B, 3, H, W) and draw them, for training."""
        past = self.past(pictures, actions)
        expected = self.picture(past, None)
        values = self.code(past, expected.detach(), frames)
        code, digits = self.codes.rounded(values)
        made = self.picture(past, code)
        context, told = self.context_tokens(past)
        chances = self.context.prior(context, past.condition.detach())
        bits, prior = self._bits(values, chances), _nats(digits, chances)
        return Coded(made, expected, digits, bits, prior, self.context.recall(context), told)

    def _bits(self, values: Tensor, chances: list[Tensor]) -> Tensor:
        """Bits (B,) of codes by the prior, as a function that is linear between levels: so they have a gradient."""
        total = values.new_zeros(len(values), dtype=torch.float32)
        for place, chance in zip(self.codes.places(values).unbind(1), chances, strict=True):
            low = place.detach().floor().long().clamp(max=chance.shape[1] - 2)[:, None]
            share = place[:, None] - low
            cost = (1 - share) * chance.detach().gather(1, low) + share * chance.detach().gather(1, low + 1)
            total = total - cost.flatten(1).sum(1)
        return total / math.log(2)


def _nats(digits: Tensor, chances: list[Tensor]) -> Tensor:
    """Mean cross-entropy, in nats a frame, of the digits under the prior."""
    total = chances[0].new_zeros(())
    for digit, chance in zip(digits.unbind(1), chances, strict=True):
        total = total - chance.gather(1, digit[:, None]).flatten(1).sum(1).mean()
    return total


class Coded(NamedTuple):
    """What the network makes of frames: pictures float (B, 3, H, W) with and without codes, digits (B, D, h, w).

    `bits` (B,) are the codes' price, `prior` () the prior's loss in nats a frame, `recalled` (B, 3, H / 4, W / 4) the
    last picture as its context tokens, ids int64 (B, h, w) in `context`, remember it.
    """

    picture: Tensor
    expected: Tensor
    digits: Tensor
    bits: Tensor
    prior: Tensor
    recalled: Tensor
    context: Tensor
