"""The tokenizer contract: what every tokenizer, built in or foreign, offers."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Tokenizer(Protocol):
    """Turns uint8 frames into grids of integer tokens and back.

    `codebook_size` is V; `grid` is (h, w) tokens a frame; `frame_size` is (H, W) pixels.
    """

    @property
    def codebook_size(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def frame_size(self) -> tuple[int, int]: ...

    def encode(self, frames: Tensor) -> Tensor:
        """Frames uint8 (T, 3, H, W) → tokens int64 (T, h, w) in [0, V)."""
        ...

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens int64 (T, h, w) in [0, V) → frames uint8 (T, 3, H, W)."""
        ...
