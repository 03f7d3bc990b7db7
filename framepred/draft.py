"""Drafts: what guesses the whole next frame, which speculative decoding then verifies. No guess changes a result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from framepred.linear import linear
from framepred.sampling import Sampling, choose
from framepred.sequence import SequenceLayout
from framepred.tokenizer.autoencoder import ResidualBlock

_ROWS = 64
"""Samples that are guessed at once: the logits of thousands would not fit into memory."""

Guess = Callable[[Tensor, Tensor, Tensor | None, Sampling], Tensor]
"""History (S, T, N), the action's ids (slots,) counted from 0, the frame's noise and sampling → guess (S, N)."""


def previous_frame(history: Tensor, actions: Tensor, noise: Tensor | None, sampling: Sampling) -> Tensor:
    """Guess that nothing moves, as `Guess`: what a run without a trained draft does."""
    return history[:, -1]


@dataclass(frozen=True)
class DraftConfig:
    """A draft's size: codes and grid (h, w) of a frame, action ids (0 without actions), past frames that it sees."""

    visual_size: int
    grid: tuple[int, int]
    action_size: int
    frames: int = 2
    width: int = 128
    blocks: int = 3

    def fits(self, layout: SequenceLayout) -> bool:
        """Say whether a draft of this size guesses the frames of a layout."""
        vocabulary = layout.vocabulary
        own = (self.visual_size, self.grid, self.action_size)
        return own == (vocabulary.visual_size, layout.grid, vocabulary.action_size)

    @staticmethod
    def from_json(value: dict[str, Any]) -> "DraftConfig":
        return DraftConfig(**value | {"grid": tuple(value["grid"])})


class Draft(nn.Module):
    """A convolutional network that sees the last frames and the action after them, and gives all tokens at once.

    One pass costs a fraction of the Llama's. It needs nothing of the Llama, so either is trained without the other.
    """

    def __init__(self, config: DraftConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.visual_size, config.width)
        # The last row stands for an action that is not given.
        self.action = nn.Embedding(config.action_size + 1, config.width) if config.action_size else None
        self.join = nn.Linear(config.frames * config.width, config.width)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.norm = nn.RMSNorm(config.width)
        # It starts as a hesitant copy of the last frame: the head is the embedding, and the blocks are identities.
        nn.init.normal_(self.embed.weight, std=0.05)
        nn.init.eye_(self.join.weight)
        nn.init.zeros_(self.join.bias)
        if self.action is not None:
            nn.init.zeros_(self.action.weight)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, history: Tensor, actions: Tensor) -> Tensor:
        """History int64 (B, T, N) of codes, action ids (B, slots) → logits (B, N, V) of the next frame."""
        past = history[:, -self.config.frames :].flip(1)
        # Where there are fewer, the oldest stands for what was before it.
        past = torch.cat([past, past[:, -1:].expand(-1, self.config.frames - past.shape[1], -1)], 1)
        x = self.join(rearrange(self.embed(past), "b t n c -> b n (t c)"))
        if self.action is not None:
            x = x + self.action(actions).sum(1, keepdim=True)
        x = self.blocks(x.mT.unflatten(2, self.config.grid))
        return linear(self.norm(x.flatten(2).mT), self.embed.weight)

    @torch.inference_mode()
    def guess(self, history: Tensor, actions: Tensor, noise: Tensor | None, sampling: Sampling) -> Tensor:
        """Draw a guess as `Guess`, under the very noise that the frame is sampled with.

        Two draws from like distributions then mostly coincide (arXiv 2510.24211).
        """
        actions = actions.expand(len(history), -1)
        parts = (slice(i, i + _ROWS) for i in range(0, len(history), _ROWS))
        return torch.cat(
            [choose(self(history[p], actions[p]), None if noise is None else noise[p], sampling) for p in parts]
        )
