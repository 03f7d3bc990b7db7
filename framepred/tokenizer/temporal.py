"""The temporal tokenizer: a frame is coded given the pictures before it and the actions that led to it.

What follows from the past and the actions costs nothing; the few tokens of a frame say what is new (after Δ-IRIS,
arXiv 2406.19320, and iVideoGPT, arXiv 2405.15223). The past is taken as it was given back, so that errors are seen and
mended. A clip begins from its first picture itself, which is known beside its tokens.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.tokenizer.contract import actions_before
from framepred.tokenizer.image import scaled, to_float, to_uint8
from framepred.tokenizer.temporal_net import Past, TemporalNet, TemporalShape

_FAR = 1e4
"""Deviations from the mean beyond which an action is as strange as can be: larger ones overflow in the network."""


class TemporalAutoencoder(nn.Module):
    """A Tokenizer around a `TemporalNet`. Continuous actions are scaled by their mean and deviation in training."""

    def __init__(self, shape: TemporalShape) -> None:
        super().__init__()
        self.net, self.shape = TemporalNet(shape), shape
        self.frame_size, self.grid, self.context_grid = shape.frame_size, shape.grid, shape.grid
        self.past, self.past_actions = shape.past, shape.past_actions if shape.action_size else 0
        self.codebook_size = self.net.codes.codebook_size
        # Of every scale the middle one: its code is zero, and the frame is what the past and the actions say.
        self.null_code = self.codebook_size // 2
        self.context_codebook_size = self.net.context.codes.codebook_size
        self.action_names = shape.action_names
        self.digits, self.context_digits = shape.levels, shape.context_levels
        self.register_buffer("action_mean", torch.zeros(shape.action_size))
        self.register_buffer("action_scale", torch.ones(shape.action_size))
        self.action_mean: Tensor
        self.action_scale: Tensor
        # The last past that was read: context tokens, codes and the picture of a frame are all made of it.
        self._known: tuple[Tensor, Tensor, Past] | None = None

    @property
    def device(self) -> torch.device:
        return self.action_mean.device

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) of a clip from its first, and the actions between them → tokens (T, K + N)."""
        return torch.cat(list(self.encode_stream([frames], actions)))

    @torch.inference_mode()
    def encode_stream(self, chunks: Iterable[Tensor], actions: Tensor | None = None) -> Iterator[Tensor]:
        """Encode a clip that comes in chunks of frames, yielding tokens int64 (T, K + N) of each."""
        pictures: Tensor | None = None
        count = 0
        for chunk in chunks:
            rows = [torch.empty(0, 2 * self.grid[0] * self.grid[1], dtype=torch.int64, device=self.device)]
            for frame in chunk.to(self.device)[:, None]:
                pictures = self._begun(frame) if pictures is None else pictures
                given = actions_before(self, actions, count)
                own = self.encode_next(pictures, given, frame)
                rows.append(torch.cat([self.encode_context(pictures, given), own.flatten(1)], 1))
                pictures = self._following(pictures, given, own)
                count += 1
            yield torch.cat(rows)

    @torch.inference_mode()
    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Tokens int64 (T, K + N) of a clip whose first picture is `first` uint8 (3, H, W) → uint8 (T, 3, H, W)."""
        if first is None:
            raise FramepredError(
                "tokens of a temporal tokenizer say how a picture goes on: give the first picture of the clip"
            )
        pictures = self._begun(first.to(self.device)[None])
        frames = [torch.empty(0, 3, *self.frame_size, dtype=torch.uint8, device=self.device)]
        for count, row in enumerate(tokens.to(self.device)):
            own = row[-self.grid[0] * self.grid[1] :].view(1, *self.grid)
            pictures = self._following(pictures, actions_before(self, actions, count), own)
            frames.append(pictures[:, -1])
        return torch.cat(frames)

    @torch.inference_mode()
    def encode_context(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        """Pictures and actions that the next frames are given → their context tokens int64 (S, K)."""
        return torch.cat([self.net.context_tokens(past)[1].flatten(1) for past in self._pasts(pictures, actions)])

    @torch.inference_mode()
    def encode_next(self, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        """Pictures, actions and the next frames uint8 (S, 3, H, W) → those frames' own tokens int64 (S, h, w)."""
        pairs = zip(self._pasts(pictures, actions), to_float(frames.to(self.device)).split(1), strict=True)
        values = [self.net.code(past, self.net.picture(past, None), frame) for past, frame in pairs]
        return torch.cat([self.net.codes.ids(self.net.codes.rounded(value)[1]) for value in values])

    @torch.inference_mode()
    def decode_next(self, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        """Pictures, actions and the next frames' own tokens int64 (S, h, w) → those frames uint8 (S, 3, H, W)."""
        pairs = zip(self._pasts(pictures, actions), tokens.to(self.device).split(1), strict=True)
        return torch.cat([to_uint8(self.net.picture(past, self.net.codes.lookup(own))) for past, own in pairs])

    @torch.inference_mode()
    def features(self, frames: Tensor) -> Tensor:
        """Frames uint8 (S, 3, H, W) → what is seen in each as the last picture, float32 (S, D, h, w)."""
        pictures = frames[:, None].expand(-1, self.past, -1, -1, -1)
        return torch.cat([past.features[-1] for past in self._pasts(pictures, None)])

    def _begun(self, frame: Tensor) -> Tensor:
        """The first picture (1, 3, H, W) of a clip → what its first frame is given, (1, P, 3, H, W)."""
        if tuple(frame.shape[-2:]) != self.frame_size:
            raise ValueError(f"frames are {tuple(frame.shape[-2:])}, the tokenizer takes {self.frame_size}")
        return frame[:, None].expand(-1, self.past, -1, -1, -1)

    def _following(self, pictures: Tensor, actions: Tensor | None, own: Tensor) -> Tensor:
        return torch.cat([pictures, self.decode_next(pictures, actions, own)[:, None]], 1)[:, 1:]

    def _pasts(self, pictures: Tensor, actions: Tensor | None) -> list[Past]:
        """Read the past of each sample by itself: what a frame is must not depend on what is coded beside it."""
        pictures, rows = pictures.to(self.device), self.action_features(actions, len(pictures))
        if self._known and len(pictures) == 1:
            known_pictures, known_rows, past = self._known
            if torch.equal(known_pictures, pictures) and torch.equal(known_rows, rows):
                return [past]
        pasts = [self.net.past(scaled(p), a) for p, a in zip(pictures.split(1), rows.split(1), strict=True)]
        if len(pasts) == 1:
            self._known = pictures.clone(), rows, pasts[0]
        return pasts

    def action_features(self, actions: Tensor | None, samples: int) -> Tensor:
        """Actions as in the contract, or None → float32 (S, A, action_size + 1), 1 at the end where given."""
        size = self.shape.action_size
        if actions is None:
            return torch.zeros(samples, self.shape.past_actions, size + 1, device=self.device)
        actions = actions.to(self.device)
        if actions.is_floating_point() != self.shape.continuous:
            kinds = ("continuous", "discrete") if self.shape.continuous else ("discrete", "continuous")
            raise FramepredError(f"the tokenizer knows {kinds[0]} actions, these are {kinds[1]}")
        if actions.is_floating_point():
            if actions.shape[-1] != size:
                raise FramepredError(f"the tokenizer knows actions of {size} numbers, these have {actions.shape[-1]}")
            given = actions.isfinite().all(-1)
            values = ((torch.nan_to_num(actions) - self.action_mean) / self.action_scale).clamp(-_FAR, _FAR)
        else:
            if int(actions.max()) >= size:
                raise FramepredError(
                    f"action id {int(actions.max())} is not allowed; the tokenizer knows ids 0 to {size - 1}"
                )
            given = actions >= 0
            values = nn.functional.one_hot(actions.clamp(min=0), size).float()
        return torch.cat([values * given[..., None], given[..., None].float()], -1)
