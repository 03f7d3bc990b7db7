"""The context-conditioned autoencoder: each frame coded given the one before it, in few tokens.

As Δ-IRIS (arXiv 2406.19320) and iVideoGPT (arXiv 2405.15223): what has not changed costs no tokens. The frame before
is taken as it was given back, not as it was, so that errors are seen and mended instead of piling up.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framepred.config.recipe import TokenizerRecipe
from framepred.tokenizer.image import Autoencoder, ResidualBlock, to_float, to_uint8
from framepred.tokenizer.quantizers import QUANTIZERS


class Pyramid(nn.Module):
    """Pictures (B, C, H, W) → features at a quarter of their size and at each halving of it, the finest first."""

    def __init__(self, channels: int, widths: list[int], count: int) -> None:
        super().__init__()
        before = [channels * 16, *widths[:-1]]
        self.stages = nn.ModuleList()
        for i, (narrow, width) in enumerate(zip(before, widths, strict=True)):
            halve = nn.Conv2d(narrow, width, 2, stride=2) if i else nn.Conv2d(narrow, width, 3, padding=1)
            self.stages.append(nn.Sequential(halve, *(ResidualBlock(width) for _ in range(count))))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        features = [F.pixel_unshuffle(pictures, 4)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[1:]


class DeltaAutoencoder(nn.Module):
    """A Tokenizer whose frames are coded given the picture before them; a plain autoencoder codes that as a key.

    The decoder moves the picture before as the tokens say, and draws over what no moving explains.
    """

    past, past_actions = 1, 0

    def __init__(self, recipe: TokenizerRecipe, frame_size: tuple[int, int]) -> None:
        super().__init__()
        self.recipe, self.frame_size, self.clip_frames = recipe, frame_size, recipe.clip_frames
        self.grid = (frame_size[0] // recipe.delta_downsampling, frame_size[1] // recipe.delta_downsampling)
        self.quantizer = QUANTIZERS[recipe.quantizer](replace(recipe, levels=recipe.delta_levels))
        self.codebook_size, self.digits = self.quantizer.codebook_size, self.quantizer.digits
        self.key = Autoencoder(recipe, frame_size)
        self.context_grid, self.context_codebook_size, self.context_digits = (
            self.key.grid,
            self.key.codebook_size,
            self.key.digits,
        )

        halvings = int(math.log2(recipe.delta_downsampling)) - 2
        widths = [recipe.width, *[2 * recipe.width] * halvings]
        self.encoder = Pyramid(6, widths, recipe.encoder_blocks)
        self.to_code = nn.Sequential(
            nn.GroupNorm(8, widths[-1]), nn.SiLU(), nn.Conv2d(widths[-1], self.quantizer.dim, 1)
        )
        self.before = Pyramid(3, widths, 1)
        # Not normed, what is seen of the picture before grows until the code is a whisper beside it, and collapses.
        self.norms = nn.ModuleList([nn.GroupNorm(8, width) for width in widths])
        self.from_code = nn.Conv2d(self.quantizer.dim, widths[-1], 3, padding=1)
        for convolution in (self.to_code[-1], self.from_code):
            assert isinstance(convolution, nn.Conv2d)
            nn.init.normal_(convolution.weight, std=1.5 / convolution.weight[0].numel() ** 0.5)
        self.decoder = nn.ModuleList()
        for i, width in reversed(list(enumerate(widths))):
            layers: list[nn.Module] = [ResidualBlock(width) for _ in range(recipe.decoder_blocks)]
            if i:
                layers += [nn.Conv2d(width, widths[i - 1] * 4, 1), nn.PixelShuffle(2)]
            self.decoder.append(nn.Sequential(*layers))
        self.norm = nn.Sequential(nn.GroupNorm(8, widths[0]), nn.SiLU())
        self.flow = nn.Conv2d(widths[0], 2, 3, padding=1)
        nn.init.zeros_(self.flow.weight)
        nn.init.zeros_(self.flow.bias)  # type: ignore[arg-type]
        edge = max(8, recipe.width // 24 * 8)
        self.drawing = nn.Sequential(
            nn.Conv2d(widths[0], edge * 4, 3, padding=1),
            nn.PixelShuffle(2),
            ResidualBlock(edge),
            nn.Conv2d(edge, 16, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def begin_like_key(self) -> None:
        """Take over what the key's autoencoder knows of seeing and drawing, from the picture inwards."""
        for pyramid in (self.encoder, self.before):
            for stage, keys in zip(pyramid.stages, _resolutions(self.key.encoder)[:-1], strict=False):
                for layer, known in zip(_layers(stage), keys, strict=False):
                    _take(layer, known)
        mine = [layer for part in (*self.decoder, self.norm, self.drawing) for layer in _layers(part)]
        for layer, known in zip(mine[::-1], _layers(self.key.decoder)[:0:-1], strict=False):
            _take(layer, known)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Float clips (B, (1 + T) · 3, H, W) in [-1, 1] → (reconstruction, ids (T, B, h, w), auxiliary loss).

        The first frame is a key's. Each other one is given the reconstruction of the one before, and gradients flow
        through all of these: what would drift is what is trained against.
        """
        first, *frames = (f.contiguous(memory_format=torch.channels_last) for f in clips.split(3, 1))
        key, _, context_loss = self.key(first)
        picture = key.detach()
        made, ids, losses = [key], [], []
        for frame in frames:
            before = picture.float().clamp(-1, 1)
            code, chosen, loss = self.quantizer(self._code(frame, before))
            picture = self._draw(before, code)
            made.append(picture)
            ids.append(chosen)
            losses.append(loss)
        return torch.cat(made, 1), torch.stack(ids), context_loss + torch.stack(losses).mean()

    def _code(self, frames: Tensor, before: Tensor) -> Tensor:
        return self.to_code(self.encoder(torch.cat([frames, before], 1))[-1])

    def _draw(self, before: Tensor, code: Tensor) -> Tensor:
        """Float pictures (B, 3, H, W) and codes (B, D, h, w) → the next frames (B, 3, H, W)."""
        x = self.from_code(code)
        for stage, norm, features in zip(
            self.decoder, reversed(self.norms), reversed(self.before(before)), strict=True
        ):
            x = stage(x + norm(features))
        x = self.norm(x)
        drawn = self.drawing(x).float()
        share = torch.sigmoid(drawn[:, 3:])
        return share * drawn[:, :3] + (1 - share) * _moved(before, self.flow(x).float())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) of a clip from its first → tokens int64 (T, K + N)."""
        return torch.cat(list(self.encode_stream([frames])))

    @torch.inference_mode()
    def encode_stream(self, chunks: Iterable[Tensor], actions: Tensor | None = None) -> Iterator[Tensor]:
        """Encode a clip that comes in chunks of frames, yielding tokens int64 (T, K + N) of each."""
        picture: Tensor | None = None
        for chunk in chunks:
            width = math.prod(self.context_grid) + math.prod(self.grid)
            rows = [torch.empty(0, width, dtype=torch.int64, device=self.device)]
            for frame in chunk.to(self.device)[:, None]:
                context = self.encode_context((frame if picture is None else picture)[:, None])
                before = (self._from_context(context) if picture is None else picture)[:, None]
                ids = self.encode_next(before, None, frame)
                picture = self.decode_next(before, None, ids)
                rows.append(torch.cat([context, ids.flatten(1)], 1))
            yield torch.cat(rows)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, actions: Tensor | None = None) -> Tensor:
        """Tokens int64 (T, K + N) → frames uint8 (T, 3, H, W), from what the first row's context tokens give back."""
        contexts, steps = tokens.to(self.device).split((math.prod(self.context_grid), math.prod(self.grid)), 1)
        frames = list[Tensor]()
        for context, grid in zip(contexts[:, None], steps.unflatten(1, self.grid)[:, None], strict=True):
            before = frames[-1] if frames else self._from_context(context)
            frames.append(self.decode_next(before[:, None], None, grid))
        return torch.cat(frames) if frames else torch.empty(0, 3, *self.frame_size, dtype=torch.uint8)

    def encode_context(self, pictures: Tensor, actions: Tensor | None = None) -> Tensor:
        """Pictures uint8 (S, 1, 3, H, W) that frames are given → context tokens int64 (S, K)."""
        # One by one, here and below: what a clip's frames are must not depend on what is coded beside it.
        return torch.cat([self.key.encode(picture).flatten(1) for picture in pictures[:, 0].split(1)])

    @torch.inference_mode()
    def encode_next(self, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        """Pictures uint8 (S, 1, 3, H, W) and the next frames (S, 3, H, W) → those frames' own tokens (S, h, w)."""
        pairs = zip(frames.to(self.device).split(1), pictures[:, 0].to(self.device).split(1), strict=True)
        return torch.cat([self.quantizer(self._code(to_float(f), to_float(p)))[1] for f, p in pairs])

    @torch.inference_mode()
    def decode_next(self, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        """Pictures uint8 (S, 1, 3, H, W) and the next frames' own tokens (S, h, w) → those frames (S, 3, H, W)."""
        pairs = zip(pictures[:, 0].to(self.device).split(1), tokens.to(self.device).split(1), strict=True)
        return torch.cat([to_uint8(self._draw(to_float(p), self.quantizer.lookup(grid))) for p, grid in pairs])

    def _from_context(self, key: Tensor) -> Tensor:
        return self.key.decode(key.unflatten(1, self.context_grid))


def begun(clips: Tensor) -> Tensor:
    """Clips (B, T · 3, H, W) → (B, (1 + T) · 3, H, W): each after its own first frame, one in four after another's.

    As where a film cuts: with the right picture always at hand, copying is learned first, and no code.
    """
    first = clips[:, :3].clone()
    first[::4] = first.roll(1, 0)[::4]
    return torch.cat([first, clips], 1)


def _layers(part: nn.Module) -> list[nn.Module]:
    return [layer for layer in part.children() if isinstance(layer, nn.Conv2d | nn.GroupNorm | ResidualBlock)]


def _resolutions(encoder: nn.Module) -> list[list[nn.Module]]:
    """Part an encoder's layers where a convolution leads to another resolution."""
    parts: list[list[nn.Module]] = []
    for layer in _layers(encoder):
        if isinstance(layer, nn.Conv2d):
            parts.append([])
        parts[-1].append(layer)
    return parts


def _take(layer: nn.Module, known: nn.Module) -> None:
    """Make a layer do what another does, in the first of its channels where it has more."""
    for mine, its in zip(layer.parameters(), known.parameters(), strict=True):
        mine.zero_()
        mine[tuple(map(slice, its.shape))] = its


def _moved(pictures: Tensor, flow: Tensor) -> Tensor:
    """Move float pictures (B, 3, H, W) by a flow (B, 2, h, w), in halves of their width and height."""
    size = pictures.shape[-2:]
    flow = F.interpolate(flow, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
    still = torch.eye(2, 3, device=pictures.device).expand(len(pictures), -1, -1)
    grid = F.affine_grid(still, [len(pictures), 1, *size], align_corners=False)
    return F.grid_sample(pictures, grid + flow, padding_mode="border", align_corners=False)
