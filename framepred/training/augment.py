"""Augmentation of training frames, so that a tokenizer does not depend on the few scenes it was trained on."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def augment(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Change a `share` of frames uint8 (B, 3, H, W) in each of three ways: a pasted part, other light, another view."""
    return _moved(_lit(_pasted(frames, share, generator), share, generator), share, generator)


def _pasted(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Paste a rectangle of the batch's frame before into a share of frames, anywhere (CutMix, arXiv 1905.04899).

    An encoder that has learned entire scenes fails where a part of one is covered; an encoder that codes each place by
    its content does not.
    """
    result = frames.clone()
    size = torch.tensor(frames.shape[-2:])
    draws = torch.rand(len(frames), 7, generator=generator)
    for i in (draws[:, 0] < share).nonzero().flatten().tolist():
        part = ((0.15 + 0.6 * draws[i, 1:3]) * size).long()
        (y, x), (top, left) = ((draws[i, k : k + 2] * (size - part)).long().tolist() for k in (3, 5))
        height, width = part.tolist()
        result[i, :, y : y + height, x : x + width] = frames[i - 1, :, top : top + height, left : left + width]
    return result


def _lit(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Change contrast and brightness of a share of frames."""
    chosen, contrast, brightness = torch.rand(3, len(frames), 1, 1, 1, generator=generator)
    lit = frames.float() * (0.75 + 0.5 * contrast) + 40 * (brightness - 0.5)
    return torch.where(chosen < share, lit.clamp(0, 255).round().to(torch.uint8), frames)


def _moved(frames: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Show a share of frames from another view: mirrored, rotated, scaled, shifted and tilted at random."""
    chosen = torch.rand(len(frames), generator=generator) < share
    count = int(chosen.sum())
    if not count:
        return frames
    draws = torch.rand(count, 8, generator=generator) * 2 - 1
    turn, wide, high, shear, right, down, tilt_x, tilt_y = draws.unbind(1)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    cos, sin = (turn * math.radians(15)).cos(), (turn * math.radians(15)).sin()
    wide, high = torch.exp2(wide * 0.4) * mirror, torch.exp2(high * 0.4)
    rows = [
        torch.stack([cos * wide, (shear * 0.15 - sin) * high, right * 0.5], 1),
        torch.stack([sin * wide, cos * high, down * 0.5], 1),
        torch.stack([tilt_x * 0.2, tilt_y * 0.2, torch.ones(count)], 1),
    ]
    height, width = frames.shape[-2:]
    plain = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners=False)
    points = torch.cat([plain, torch.ones(1, height, width, 1)], -1) @ torch.stack(rows, 1).transpose(1, 2)[:, None]
    grid = points[..., :2] / points[..., 2:]
    moved = F.grid_sample(frames[chosen].float(), grid, padding_mode="reflection", align_corners=False)
    result = frames.clone()
    result[chosen] = moved.round_().to(torch.uint8)
    return result
