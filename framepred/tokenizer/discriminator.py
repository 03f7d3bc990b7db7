"""A discriminator beside a tokenizer in training: reconstructions are to look real, not only to be near."""

from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Says of each patch whether it is real (PatchGAN, arXiv 1611.07004): frames (B, 3, H, W) → (B, 1, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before, after in ((width, 2 * width), (2 * width, 4 * width)):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.GroupNorm(8, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(4 * width, 1, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> Tensor:
        return self.layers(frames)


class _Balance(torch.autograd.Function):
    """Hands a picture to two losses; the second's gradient is scaled to `weight` times the norm of the first's."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weight)
        return picture.clone(), picture.clone()

    @staticmethod
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        ratio = first.float().norm() / (second.float().norm() + 1e-8)
        return first + second * (weight * ratio).to(second.dtype), None


class WithAdversary(nn.Module):
    """A tokenizer and its discriminator, trained as one: each learns from its own loss alone.

    The weight of looking real adapts as VQGAN's does (arXiv 2012.09841): its gradient is a given part of
    the gradient of being near, here where both enter, at the picture.
    """

    def __init__(self, tokenizer: nn.Module, width: int) -> None:
        super().__init__()
        self.tokenizer, self.discriminator = tokenizer, Discriminator(width)

    def forward(self, frames: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float frames (B, T · 3, H, W) in [-1, 1] → as the tokenizer; both adversaries' losses are in the auxiliary.

        `weight` () is how much looking real counts beside being near; at 0 only the discriminator learns from it.
        """
        reconstruction, ids, auxiliary = self.tokenizer(frames)
        near, real = _Balance.apply(reconstruction, weight)  # type: ignore[no-untyped-call]
        constant = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        fooled = -functional_call(self.discriminator, constant, (as_pictures(real),)).mean()
        seen, made = (self.discriminator(as_pictures(x)) for x in (frames, reconstruction.detach()))
        told_apart = (F.relu(1 - seen).mean() + F.relu(1 + made).mean()) / 2
        return near, ids, auxiliary + fooled + told_apart


def as_pictures(frames: Tensor) -> Tensor:
    """The frames of a clip are channels of one picture: (B, T · 3, H, W) → (B · T, 3, H, W)."""
    return rearrange(frames, "b (t c) h w -> (b t) c h w", c=3)
