"""Training windows: id sequences of fixed length from episodes of tokens; a batch depends on its step alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.sequence.layout import SequenceLayout
from framepred.tokens.mapped import let_go
from framepred.tokens.store import TokenEpisode


def split_episodes(names: Sequence[str], fraction: float) -> tuple[list[int], list[int]]:
    """Split episodes into (training, validation) indices by a hash of their names.

    Entire episodes are held out, so that no validation window overlaps training; of a single one `held_out_end`.
    """
    count = min(len(names) - 1, max(1, round(len(names) * fraction))) if fraction and len(names) > 1 else 0
    order = sorted(range(len(names)), key=lambda i: (hashlib.sha256(names[i].encode()).digest(), i))
    return sorted(order[count:]), sorted(order[:count])


_LEAST_END, _LEAST_VIDEO = 24, 96
"""Frames that are held out of a single video at least, and frames that it must have for that."""


def held_out_end(frames: int, fraction: float) -> int:
    """Return how many frames at the end of a single video of so many are held out: twice the share of whole videos."""
    return max(_LEAST_END, round(2 * fraction * frames)) if fraction and frames >= _LEAST_VIDEO else 0


def group_weights(groups: Sequence[str], sizes: Sequence[int], power: float) -> Tensor:
    """Return each episode's probability: that of its source, frames to the `power`, times its share of its frames."""
    totals: dict[str, int] = {}
    for group, size in zip(groups, sizes, strict=True):
        totals[group] = totals.get(group, 0) + size
    weights = torch.tensor(
        [size * totals[g] ** (power - 1) for g, size in zip(groups, sizes, strict=True)], dtype=torch.float64
    )
    return weights / weights.sum()


def step_generator(seed: int, *counters: int) -> torch.Generator:
    """Return a generator that depends on the seed and counters only, so a resumed run draws the same."""
    digest = hashlib.sha256(repr((seed, *counters)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@dataclass(frozen=True)
class Windows:
    """Episodes, and windows of ids cut out of them when they are drawn.

    For each episode, `tokens` int32 (T, K + N) and `actions` as a TokenEpisode has them, of which `known` says how
    many; `starts` and `lengths` say where it lies among all frames. `window` is the number of frames of a window;
    `weights` are the probabilities of the episodes.
    """

    layout: SequenceLayout
    window: int
    tokens: tuple[Tensor, ...]
    actions: tuple[Tensor | None, ...]
    known: Tensor
    starts: Tensor
    lengths: Tensor
    weights: Tensor

    @staticmethod
    def build(
        episodes: Sequence[TokenEpisode], groups: Sequence[str], layout: SequenceLayout, window: int, power: float
    ) -> "Windows":
        """Take the episodes of at least two frames; `groups` are their sources, drawn by frames to the `power`."""
        kept = [(e, g) for e, g in zip(episodes, groups, strict=True) if len(e.tokens) >= 2]
        for episode, _ in kept:
            # What is wrong with its actions is said now, not when they are drawn.
            layout.action_ids(episode.actions, len(episode.tokens), episode.name)
            let_go()
        lengths = torch.tensor([len(e.tokens) for e, _ in kept], dtype=torch.int64)
        known = [0 if e.actions is None else len(e.actions) for e, _ in kept]
        return Windows(
            layout,
            window,
            tuple(e.tokens.flatten(1) for e, _ in kept),
            tuple(e.actions for e, _ in kept),
            torch.tensor(known, dtype=torch.int64),
            lengths.cumsum(0) - lengths,
            lengths,
            group_weights([g for _, g in kept], lengths.tolist(), power) if kept else torch.empty(0),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, episodes: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Return windows as ids int64 (B, window · stride), and which frames are real, bool (B, window).

        Behind the end of a short episode its last frame is repeated.
        """
        position = offsets[:, None] + torch.arange(self.window)
        real = position < self.lengths[episodes][:, None]
        rows = torch.minimum(position, self.lengths[episodes][:, None] - 1)
        tokens = torch.cat(
            [self.tokens[0][:0], *(self.tokens[e][at] for e, at in zip(episodes.tolist(), rows, strict=True))]
        )
        actions = self._action_ids(episodes, rows)
        let_go()
        return torch.cat([self.layout.row_ids(tokens), actions], 1).view(len(rows), -1), real

    def _action_ids(self, episodes: Tensor, rows: Tensor) -> Tensor:
        """Return the ids int64 (B · window, slots) of the actions after frames `rows` (B, window) of episodes (B,)."""
        given = rows < self.known[episodes][:, None]
        drawn = zip(episodes.tolist(), rows, given.sum(1).tolist(), strict=True)
        # The rows go up: those that have an action come first.
        found = [actions[at[:n]] for e, at, n in drawn if (actions := self.actions[e]) is not None]
        ids = self.layout.action_ids(None, rows.numel())
        if found:
            ids[given.flatten()] = self.layout.action_ids(torch.cat(found), int(given.sum()))
        return ids

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch of windows at random, in the form of `gather`."""
        return self.gather(*self.draw(size, generator))

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the episodes and offsets (B,) of a batch of windows."""
        episodes = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        return episodes, self.draw_offsets(episodes, generator)

    def draw_offsets(self, episodes: Tensor, generator: torch.Generator) -> Tensor:
        """Draw where a window begins in each of `episodes` (B,), int64 (B,)."""
        spare = (self.lengths[episodes] - self.window).clamp(min=0)
        return (torch.rand(len(episodes), generator=generator, dtype=torch.float64) * (spare + 1)).long()

    def covering(self, episode: int) -> tuple[Tensor, Tensor]:
        """Return the windows that have each frame of an episode once, but for the first of each window, as `gather`.

        The first frame of a window is the last of the one before it.
        """
        offsets = torch.arange(0, max(1, int(self.lengths[episode]) - 1), self.window - 1)
        return self.gather(torch.full_like(offsets, episode), offsets)

    def evenly(self, size: int) -> tuple[Tensor, Tensor]:
        """Return `size` windows at even distances over all frames, in the form of `gather`; always the same ones."""
        return self.gather(*self.even_places(size))

    def even_places(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the episodes and offsets (B,) of `size` windows at even distances over all frames."""
        places = torch.arange(size) * int(self.lengths.sum()) // size
        episodes = torch.searchsorted(self.starts, places, right=True) - 1
        spare = (self.lengths[episodes] - self.window).clamp(min=0)
        return episodes, torch.minimum(places - self.starts[episodes], spare)
