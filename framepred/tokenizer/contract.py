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

    A frame may be coded given the P = `past` pictures before it as they were given back, and the last
    A = `past_actions` actions, of which the last leads to the frame (arXiv 2406.19320, 2405.15223). Then there are
    context tokens: `context_grid` (h', w') of `context_codebook_size` codes. The tokens of T frames are (T, K + N):
    the context tokens of what the frame is given, then the frame's own N = h · w. With P > 1 a clip begins from its
    first picture itself, `first` uint8 (3, H, W): that is what decoding needs beside tokens and actions. Other
    tokenizers ignore it, and their tokens may be decoded from any frame on.

    Pictures are uint8 (S, P, 3, H, W), the latest last; of fewer than P the first is repeated. Actions beside them are
    int64 (S, A), -1 where none is given, or float32 (S, A, D), NaN where none is given, or None where none is
    (`actions_before`). Actions of a whole clip are as an episode has them, int64 (T - 1,) or float32 (T - 1, D).
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

    @property
    def past(self) -> int: ...

    @property
    def past_actions(self) -> int: ...

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        """Frames uint8 (T, 3, H, W) of a clip from its first, and the actions between them → tokens."""
        ...

    def encode_stream(self, chunks: Iterable[Tensor], actions: Tensor | None = None) -> Iterator[Tensor]:
        """Encode a clip that comes in chunks of frames, yielding the tokens of each."""
        ...

    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        """Tokens of T frames, the actions between them and the clip's first picture → frames uint8 (T, 3, H, W)."""
        ...

    def encode_context(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        """Pictures and actions that the next frames are given → their context tokens int64 (S, K)."""
        ...

    def encode_next(self, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        """Pictures, actions and the next frames uint8 (S, 3, H, W) → those frames' own tokens int64 (S, h, w)."""
        ...

    def decode_next(self, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        """Pictures, actions and the next frames' own tokens int64 (S, h, w) → those frames uint8 (S, 3, H, W)."""
        ...


class FrameByFrame:
    """What a tokenizer inherits whose frames each stand for themselves: nothing is given, no context tokens."""

    past = past_actions = 0
    context_grid = (0, 0)
    context_codebook_size = 0

    def encode_stream(self: Any, chunks: Iterable[Tensor], actions: Tensor | None = None) -> Iterator[Tensor]:
        return map(self.encode, chunks)

    def encode_context(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        return torch.empty(len(pictures), 0, dtype=torch.int64, device=pictures.device)

    def encode_next(self: Any, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        return self.encode(frames)

    def decode_next(self: Any, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        return self.decode(tokens)


def last_pictures(
    tokenizer: Tokenizer, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None
) -> Tensor:
    """Return the pictures that the frame after a clip's T frames is given, uint8 (1, P, 3, H, W).

    Where `first` holds the true pictures of all frames, uint8 (T, 3, H, W), they are those; else the tokens decoded,
    beginning with the first picture (3, H, W). Of fewer than P frames the first is repeated.
    """
    if not tokenizer.past:
        return torch.empty(1, 0, 3, *tokenizer.frame_size, dtype=torch.uint8, device=tokens.device)
    if first is not None and first.ndim == 4:
        shown, begun = first.to(tokens.device)[: len(tokens)][-tokenizer.past :], first[:1].to(tokens.device)
    else:
        shown = tokenizer.decode(tokens, actions, first)[-tokenizer.past :]
        begun = shown[:1] if first is None else first.to(shown.device)[None]
    return torch.cat([begun.expand(tokenizer.past - len(shown), -1, -1, -1), shown])[None]


def actions_before(tokenizer: Tokenizer, actions: Tensor | None, frame: int) -> Tensor | None:
    """Actions of a clip → the last A up to the one that leads to frame number `frame`, (1, A) or (1, A, D)."""
    count = tokenizer.past_actions
    if actions is None or not count:
        return None
    rows = actions[:, None] if actions.is_floating_point() and actions.ndim == 1 else actions
    found = rows.new_full((count, *rows.shape[1:]), torch.nan if rows.is_floating_point() else -1)
    start = max(0, frame - count)
    given = rows[start:frame]
    found[start - frame + count : start - frame + count + len(given)] = given
    return found[None]
