"""A discriminator beside a tokenizer in training: reconstructions are to look real, not only to be near."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call


class Discriminator(nn.Module):
    """Says of each patch whether it is real (PatchGAN, arXiv 1611.07004).

    Pictures (B, channels, H, W) → what each layer saw, the verdict (B, 1, h, w) last.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        sizes = ((channels, width), (width, 2 * width), (2 * width, 4 * width))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in sizes)
        self.norms = nn.ModuleList([nn.Identity(), nn.GroupNorm(8, 2 * width), nn.GroupNorm(8, 4 * width)])
        self.verdict = nn.Conv2d(4 * width, 1, 3, padding=1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pictures: Tensor) -> list[Tensor]:
        x, seen = pictures, []
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.leaky_relu(norm(layer(x)), 0.2)
            seen.append(x)
        return [*seen, self.verdict(x)]


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


def judged(
    discriminator: nn.Module, made: Tensor, frames: Tensor, weight: Tensor, before: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the made pictures (B, 3, H, W), to be near to the frames, and the loss of both adversaries.

    They are judged beside the pictures `before` them, where given. Those made learn to give the discriminator what true
    frames do in each layer, and to be taken for true; it learns from its own loss alone. The weight of looking real
    adapts as VQGAN's does (arXiv 2012.09841): its gradient is `weight` () times that of being near, here where both
    enter, at the picture; at 0 only the discriminator learns.
    """
    given = made[:, :0] if before is None else before
    near, real = _Balance.apply(made, weight)  # type: ignore[no-untyped-call]
    constant = {name: p.detach() for name, p in discriminator.named_parameters()}
    found = functional_call(discriminator, constant, (torch.cat([given, real], 1),))
    seen = discriminator(torch.cat([given, frames], 1))
    verdict = discriminator(torch.cat([given, made.detach()], 1))[-1].float()
    pairs = zip(found[:-1], seen[:-1], strict=True)
    alike = torch.stack([(a.float() - b.detach().float()).abs().mean() for a, b in pairs]).sum()
    told_apart = (F.relu(1 - seen[-1].float()).mean() + F.relu(1 + verdict).mean()) / 2
    return near, alike - 0.2 * found[-1].float().mean() + told_apart


class WithAdversary(nn.Module):
    """An image tokenizer and its discriminator, trained as one: each learns from its own loss alone."""

    def __init__(self, tokenizer: nn.Module, width: int) -> None:
        super().__init__()
        self.tokenizer, self.discriminator = tokenizer, Discriminator(3, width)

    def forward(self, frames: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float frames (B, 3, H, W) in [-1, 1] → as the tokenizer; both adversaries' losses are in the auxiliary."""
        reconstruction, ids, auxiliary = self.tokenizer(frames)
        near, loss = judged(self.discriminator, reconstruction, frames, weight)
        return near, ids, auxiliary + loss
