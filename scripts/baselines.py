"""What framepred's tokenizers are compared with: two as others have published, and the plain loop that trains them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from einops import rearrange
from torch import Tensor, nn

from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.sources.contract import StoredEpisode
from framepred.tokenizer.contract import FrameByFrame
from framepred.tokenizer.image import (
    ResidualBlock,
    decode_in_parts,
    encode_in_parts,
    reconstruction_loss,
    to_float,
)
from framepred.training.frames import sample_frames
from framepred.training.loop import TrainProgress, arithmetic
from framepred.training.windows import group_weights, step_generator

_CHUNK = 64
_WIDTH = 64
_LEARNING_RATE = 1e-3


class Baseline(FrameByFrame, nn.Module):
    """A Tokenizer, `stride` pixels a token: a subclass has `encoder` and `decoder` and says how codes are chosen."""

    encoder: nn.Module
    decoder: nn.Module

    def __init__(self, frame_size: tuple[int, int], stride: int, codebook_size: int) -> None:
        super().__init__()
        if frame_size[0] % stride or frame_size[1] % stride:
            raise FramepredError(f"frames of {frame_size} have no whole tokens of {stride}x{stride} pixels")
        self.frame_size, self.codebook_size = frame_size, codebook_size
        self.grid = (frame_size[0] // stride, frame_size[1] // stride)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes before quantizing (B, D, h, w) → (codes, ids int64 (B, h, w), auxiliary loss)."""
        raise NotImplementedError

    def lookup(self, ids: Tensor) -> Tensor:
        """Ids int64 (B, h, w) → codes (B, D, h, w)."""
        raise NotImplementedError

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Float frames (B, 3, H, W) in [-1, 1] → (reconstruction, auxiliary loss)."""
        codes, _, loss = self.quantize(self.encoder(frames))
        return self.decoder(codes), loss

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) → tokens int64 (T, h, w) in [0, V)."""
        return encode_in_parts(self, frames, _CHUNK, lambda part: self.quantize(self.encoder(part))[1])

    @torch.inference_mode()
    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Tokens int64 (T, h, w) in [0, V) → frames uint8 (T, 3, H, W)."""
        return decode_in_parts(self, tokens, _CHUNK, lambda part: self.decoder(self.lookup(part)))


class PlainVQ(Baseline):
    """`vector-quantize-pytorch` as its first page shows it, between strided convolutions: framepred's token budget."""

    def __init__(self, recipe: Recipe) -> None:
        tok = recipe.tokenizer
        super().__init__(recipe.data.size, tok.downsampling, 1024)
        try:
            from vector_quantize_pytorch import VectorQuantize
        except ImportError as error:
            raise FramepredError(
                "the kind vq-pytorch needs vector-quantize-pytorch: pip install vector-quantize-pytorch, "
                "or leave it out of --kinds"
            ) from error
        widths = [3, *(tok.width * 2**i for i in range(int(math.log2(tok.downsampling))))]
        steps = list(pairwise(widths))
        down = [layer for a, b in steps for layer in (nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU())]
        up = [layer for a, b in reversed(steps) for layer in (nn.ReLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))]
        self.encoder = nn.Sequential(*down, nn.Conv2d(widths[-1], widths[-1], 3, padding=1))
        self.decoder = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 3, padding=1), *up)
        self.quantizer = VectorQuantize(
            dim=widths[-1], codebook_size=self.codebook_size, decay=0.8, commitment_weight=1.0, accept_image_fmap=True
        )

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.quantizer(z)

    def lookup(self, ids: Tensor) -> Tensor:
        return self.quantizer.get_output_from_indices(ids)


class IrisShape(Baseline):
    """The tokenizer of IRIS (arXiv 2209.00588) in its published shape: 512 codes of 512 channels, 4x4 of 64x64 pixels.

    64 channels at every one of five resolutions, two residual blocks each to encode and three to decode, attention
    at a quarter, an eighth and the last; codes learn by gradient, the commitment counts as much as they do.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe.data.size, 16, 512)
        encoder: list[nn.Module] = [nn.Conv2d(3, _WIDTH, 3, padding=1)]
        decoder: list[nn.Module] = _end(3)
        for stride in (1, 2, 4, 8, 16):
            if stride > 1:
                encoder.append(nn.Conv2d(_WIDTH, _WIDTH, 3, stride=2, padding=1))
                decoder = [nn.Upsample(scale_factor=2), nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1), *decoder]
            encoder += _blocks(2, attend=stride in (4, 8))
            decoder = _blocks(3, attend=stride in (4, 8)) + decoder
        self.encoder = nn.Sequential(*encoder, *_middle(), *_end(512), nn.Conv2d(512, 512, 1))
        self.codebook = nn.Embedding(512, 512)
        nn.init.uniform_(self.codebook.weight, -1 / 512, 1 / 512)
        first = [nn.Conv2d(512, 512, 1), nn.Conv2d(512, _WIDTH, 3, padding=1)]
        self.decoder = nn.Sequential(*first, *_middle(), *decoder)

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = z.float()
        # In fp32 here too: in bf16 the nearest of codes so close together is a matter of rounding.
        with torch.no_grad(), torch.autocast(z.device.type, enabled=False):
            ids = torch.cdist(rearrange(z, "b d h w -> b (h w) d"), self.codebook.weight[None]).argmin(-1)
        ids = ids.view(-1, *z.shape[2:])
        codes = self.lookup(ids)
        loss = F.mse_loss(codes, z.detach()) + F.mse_loss(z, codes.detach())
        return z + (codes - z).detach(), ids, loss

    def lookup(self, ids: Tensor) -> Tensor:
        return self.codebook(ids).movedim(-1, 1)


class Attention(nn.Module):
    """One head over all places of (B, C, H, W), with a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.qkv, self.out = nn.Conv2d(width, 3 * width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = rearrange(self.qkv(self.norm(x)), "b (n c) h w -> n b 1 (h w) c", n=3)
        seen = F.scaled_dot_product_attention(q, k, v)
        return x + self.out(rearrange(seen, "b 1 (h w) c -> b c h w", h=x.shape[2]))


def _blocks(count: int, attend: bool) -> list[nn.Module]:
    kinds = (ResidualBlock, Attention) if attend else (ResidualBlock,)
    return [kind(_WIDTH) for _ in range(count) for kind in kinds]


def _middle() -> list[nn.Module]:
    return [ResidualBlock(_WIDTH), Attention(_WIDTH), ResidualBlock(_WIDTH)]


def _end(channels: int) -> list[nn.Module]:
    return [nn.GroupNorm(8, _WIDTH), nn.SiLU(), nn.Conv2d(_WIDTH, channels, 3, padding=1)]


BASELINES: dict[str, Callable[[Recipe], Baseline]] = {"vq-pytorch": PlainVQ, "iris": IrisShape}


def train_baseline(
    model: Baseline, videos: Sequence[StoredEpisode], recipe: Recipe, accelerator: Accelerator
) -> Iterator[TrainProgress]:
    """Train for the recipe's minutes, what reading takes included, on the frames and the loss of framepred's own.

    Precision, batch size and the course of the learning rate are the recipe's too; frames are taken as they are.
    AdamW moves the weights, at the rate that framepred's own learn best at by it.
    """
    began, tok, loop = time.monotonic(), recipe.tokenizer, recipe.training
    most = recipe.data.max_tokenizer_frames
    train = sample_frames(videos, recipe.data.size, most, lenient=len(videos) > 1)
    weights = group_weights(train.groups, [1] * len(train.groups), recipe.data.source_power)
    model.to(accelerator.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=tok.weight_decay, betas=(0.9, 0.95))
    generator = step_generator(loop.seed, 1)
    step, elapsed = 0, time.monotonic() - began
    while (spent := elapsed / (60 * loop.minutes)) < 1:
        optimizer.param_groups[0]["lr"] = _LEARNING_RATE * min(1.0, (spent + 1e-4) / loop.warmup) * (1 - spent)
        index = torch.multinomial(weights, tok.batch_size, replacement=True, generator=generator)
        batch = to_float(train.frames[index].to(accelerator.device))
        with arithmetic(accelerator, loop):
            reconstruction, auxiliary = model(batch)
            loss = reconstruction_loss(reconstruction, batch) + auxiliary
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), loop.clip_gradient)
        optimizer.step()
        optimizer.zero_grad()
        step, elapsed = step + 1, time.monotonic() - began
        rate = step * len(batch) / elapsed
        yield TrainProgress("baseline", step, spent, float(loss.detach()), rate, "frames", elapsed, None)
    model.eval()
