"""The convolutional autoencoder around a quantizer: framepred's own image tokenizer."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.config.recipe import TokenizerRecipe
from framepred.tokenizer.contract import FrameByFrame
from framepred.tokenizer.quantizers import QUANTIZERS

_CHUNK = 32
"""Frames at once: it bounds the memory; from 8 to 128 take the same time."""


class ResidualBlock(nn.Module):
    """Norm, 3x3 convolution, twice, with a skip; the second starts at zero, so the block starts as identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(8, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(8, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(h)))


class Autoencoder(FrameByFrame, nn.Module):
    """Encoder, quantizer, decoder: a Tokenizer.

    Pixels are folded 4x4 into channels first: full-resolution convolutions cost most and give least.
    Below that the grid halves log2(downsampling / 4) times while the width doubles.
    """

    def __init__(self, recipe: TokenizerRecipe, frame_size: tuple[int, int]) -> None:
        super().__init__()
        self.recipe = recipe
        self.frame_size = frame_size
        self.grid = (frame_size[0] // recipe.downsampling, frame_size[1] // recipe.downsampling)
        self.quantizer = QUANTIZERS[recipe.quantizer](recipe)
        self.codebook_size, self.digits = self.quantizer.codebook_size, self.quantizer.digits
        halvings = int(math.log2(recipe.downsampling)) - 2
        widths = [recipe.width * 2**i for i in range(halvings + 1)]

        encoder: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, widths[0], 3, padding=1)]
        for i, width in enumerate(widths):
            if i:
                encoder.append(nn.Conv2d(widths[i - 1], width, 2, stride=2))
            encoder += [ResidualBlock(width) for _ in range(recipe.encoder_blocks)]
        encoder += [nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], self.quantizer.dim, 1)]
        self.encoder = nn.Sequential(*encoder)

        decoder: list[nn.Module] = [nn.Conv2d(self.quantizer.dim, widths[-1], 3, padding=1)]
        for i, width in reversed(list(enumerate(widths))):
            decoder += [ResidualBlock(width) for _ in range(recipe.decoder_blocks)]
            if i:
                decoder += [nn.Conv2d(width, widths[i - 1] * 4, 1), nn.PixelShuffle(2)]
        edge = max(8, recipe.width // 24 * 8)
        decoder += [
            nn.GroupNorm(8, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], edge * 4, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(edge),
            nn.Conv2d(edge, 12, 3, padding=1),
            nn.PixelShuffle(2),
        ]
        self.decoder = nn.Sequential(*decoder)
        # Convolutions on CPU and tensor cores run fastest in this layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float frames (B, 3, H, W) in [-1, 1] → (reconstruction, ids (B, h, w), auxiliary loss)."""
        quantized, ids, loss = self.quantizer(self.encoder(frames))
        return self.decoder(quantized), ids, loss

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.inference_mode()
    def features(self, frames: Tensor) -> Tensor:
        """Frames uint8 (S, 3, H, W) → the codes that each is drawn from, float32 (S, D, h, w)."""
        return self.quantizer(self.encoder(to_float(frames.to(self.device))))[0]

    @torch.inference_mode()
    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) → tokens int64 (T, h, w) in [0, V)."""
        return encode_in_parts(self, frames, _CHUNK, lambda part: self.quantizer(self.encoder(part))[1])

    @torch.inference_mode()
    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Tokens int64 (T, h, w) in [0, V) → frames uint8 (T, 3, H, W)."""
        return decode_in_parts(self, tokens, _CHUNK, lambda part: self.decoder(self.quantizer.lookup(part)))


def encode_in_parts(tokenizer: Any, frames: Tensor, chunk: int, to_ids: Callable[[Tensor], Tensor]) -> Tensor:
    """Frames uint8 (T, 3, H, W) → tokens int64 (T, h, w), `to_ids` of `chunk` float frames at a time."""
    if frames.shape[-2:] != tokenizer.frame_size:
        raise ValueError(f"frames are {tuple(frames.shape[-2:])}, the tokenizer takes {tokenizer.frame_size}")
    parts = [
        to_ids(to_float(part.to(tokenizer.device))).view(-1, *tokenizer.grid).long()
        for part in frames.split(chunk)
        if len(part)
    ]
    return torch.cat(parts) if parts else torch.empty(0, *tokenizer.grid, dtype=torch.int64)


def decode_in_parts(tokenizer: Any, tokens: Tensor, chunk: int, to_frames: Callable[[Tensor], Tensor]) -> Tensor:
    """Tokens int64 (T, h, w) → frames uint8 (T, 3, H, W), `to_frames` of `chunk` grids at a time."""
    parts = [to_uint8(to_frames(part.to(tokenizer.device))) for part in tokens.split(chunk) if len(part)]
    return torch.cat(parts) if parts else torch.empty(0, 3, *tokenizer.frame_size, dtype=torch.uint8)


def to_float(frames: Tensor) -> Tensor:
    """Frames uint8 → float32 in [-1, 1], laid out as convolutions like them."""
    return scaled(frames).contiguous(memory_format=torch.channels_last)


def scaled(frames: Tensor) -> Tensor:
    """Frames uint8, of any shape → float32 in [-1, 1]."""
    return frames.float().div_(127.5).sub_(1)


def to_uint8(frames: Tensor) -> Tensor:
    """Float frames in [-1, 1] → uint8."""
    return frames.float().add(1).mul(127.5).round_().clamp_(0, 255).to(torch.uint8).contiguous()


def reconstruction_loss(prediction: Tensor, frames: Tensor) -> Tensor:
    """Squared plus a little absolute error of float frames in [-1, 1]."""
    error = (prediction - frames).float()
    return error.square().mean() + 0.1 * error.abs().mean()
