"""The tokenizer contract: what every tokenizer, built in or foreign, offers."""

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Turns uint8 frames of a clip into integer tokens and back.

    `codebook_size` is V; `grid` is (h, w) tokens a frame; `frame_size` is (H, W) pixels. The tokens of T frames
    are int64 (T, h, w).

    A frame may be coded given the one before it as it was given back (arXiv 2406.19320, 2405.15223). Then
    that picture has context tokens: `context_grid` (h', w') of `context_codebook_size` codes. The tokens of T frames
    are rows (T, K + N): the context tokens of the picture before (the first of a clip: its own), then the frame's own
    N = h · w. Decoding may begin at any row, from what its context tokens give back.
    """

    @property
    def codebook_size(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def frame_size(self) -> tuple[int, int]: ...

    @property
    def context_grid(self) -> tuple[int, int]: ...

    @property
    def context_codebook_size(self) -> int: ...

    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 (T, 3, H, W) of a clip from its first → tokens."""
        ...

    def encode_stream(self, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Encode a clip that comes in chunks of frames, yielding the tokens of each."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens of T frames → frames uint8 (T, 3, H, W)."""
        ...

    def encode_context(self, before: Tensor) -> Tensor:
        """Pictures uint8 (S, 3, H, W) that frames are given → contexts int64 (S, K)."""
        ...

    def decode_next(self, before: Tensor, grids: Tensor) -> Tensor:
        """Pictures uint8 (S, 3, H, W) and the next frames' own tokens (S, h, w) → those frames uint8 (S, 3, H, W)."""
        ...


class FrameByFrame:
    """What a tokenizer inherits whose frames each stand for themselves: nothing is given, and there are no contexts."""

    context_grid = (0, 0)
    context_codebook_size = 0

    def encode_stream(self: Any, chunks: Iterable[Tensor]) -> Iterator[Tensor]:
        return map(self.encode, chunks)

    def encode_context(self, before: Tensor) -> Tensor:
        return torch.empty(len(before), 0, dtype=torch.int64, device=before.device)

    def decode_next(self: Any, before: Tensor, grids: Tensor) -> Tensor:
        return self.decode(grids)


def last_picture(tokenizer: Tokenizer, tokens: Tensor) -> Tensor:
    """Return what a clip's last tokens show, uint8 (1, 3, H, W): all are decoded where each needs those before."""
    return tokenizer.decode(tokens if tokenizer.context_codebook_size else tokens[-1:])[-1:]
