"""Training windows: episodes of tokens → fixed-length id sequences, each batch a function of its step."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.sequence.layout import SequenceLayout
from framepred.tokens.store import TokenEpisode


def split_episodes(names: Sequence[str], fraction: float) -> tuple[list[int], list[int]]:
    """Split episodes into (training, validation) indices by a hash of their names.

    Whole episodes are held out, so no window of validation overlaps training; with one episode
    there is nothing to hold out.
    """
    count = min(len(names) - 1, max(1, round(len(names) * fraction))) if fraction and len(names) > 1 else 0
    order = sorted(range(len(names)), key=lambda i: (hashlib.sha256(names[i].encode()).digest(), i))
    return sorted(order[count:]), sorted(order[:count])


def group_weights(groups: Sequence[str], sizes: Sequence[int], power: float) -> Tensor:
    """Return each episode's share of the draws: its source by frames to the `power`, within it by frames."""
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
    """Episodes laid end to end as ids: `steps` int32 (frames, stride); `starts` and `lengths` are the episodes'."""

    layout: SequenceLayout
    window: int
    steps: Tensor
    starts: Tensor
    lengths: Tensor
    weights: Tensor

    @staticmethod
    def build(
        episodes: Sequence[TokenEpisode], groups: Sequence[str], layout: SequenceLayout, window: int, power: float
    ) -> "Windows":
        """Lay out the episodes of at least two frames; `groups` names each one's source, drawn with `power`."""
        kept = [(e, g) for e, g in zip(episodes, groups, strict=True) if len(e.tokens) >= 2]
        frames = [layout.row_ids(e.tokens.flatten(1)) for e, _ in kept]
        actions = [layout.action_ids(e.actions, len(e.tokens), e.name) for e, _ in kept]
        steps = [torch.cat(pair, 1).int() for pair in zip(frames, actions, strict=True)]
        lengths = torch.tensor([len(s) for s in steps])
        return Windows(
            layout,
            window,
            torch.cat(steps) if steps else torch.empty(0, layout.stride, dtype=torch.int32),
            torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]]) if steps else lengths,
            lengths,
            group_weights([g for _, g in kept], lengths.tolist(), power) if steps else torch.empty(0),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def gather(self, episodes: Tensor, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """Take windows → ids int64 (B, window · stride) and which frames are real, bool (B, window)."""
        position = offsets[:, None] + torch.arange(self.window)
        real = position < self.lengths[episodes][:, None]
        rows = self.starts[episodes][:, None] + torch.minimum(position, self.lengths[episodes][:, None] - 1)
        return self.steps[rows].flatten(1).long(), real

    def batch(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw a batch of windows at random places, as `gather` gives them."""
        return self.gather(*self.draw(size, generator))

    def draw(self, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the episodes and offsets (B,) of a batch of windows."""
        episodes = torch.multinomial(self.weights, size, replacement=True, generator=generator)
        spare = (self.lengths[episodes] - self.window).clamp(min=0)
        return episodes, (torch.rand(size, generator=generator, dtype=torch.float64) * (spare + 1)).long()

    def spread(self, size: int) -> tuple[Tensor, Tensor]:
        """Take `size` windows spread evenly over all frames, as `gather` gives them: the same ones every time."""
        return self.gather(*self.spread_places(size))

    def spread_places(self, size: int) -> tuple[Tensor, Tensor]:
        """Return the episodes and offsets (B,) of `size` windows spread evenly over all frames."""
        places = torch.arange(size) * int(self.lengths.sum()) // size
        episodes = torch.searchsorted(self.starts, places, right=True) - 1
        spare = (self.lengths[episodes] - self.window).clamp(min=0)
        return episodes, torch.minimum(places - self.starts[episodes], spare)
