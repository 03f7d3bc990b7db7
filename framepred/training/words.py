"""Text in training rows: a caption before or after a window of frames, or only text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.config.recipe import TextRecipe
from framepred.sequence.layout import SequenceLayout
from framepred.tokens.store import TokenEpisode
from framepred.training.windows import Windows


@dataclass(frozen=True)
class Span:
    """A caption of an episode's frames from `first` to before `stop`, as ids int64 (n,)."""

    first: int
    stop: int
    ids: Tensor


@dataclass(frozen=True)
class Words:
    """The captions of each training episode, and other texts as ids (n,), one after the other.

    The id `end` ends each text.
    """

    layout: SequenceLayout
    captions: tuple[tuple[Span, ...], ...]
    texts: Tensor
    end: int
    recipe: TextRecipe

    @staticmethod
    def build(
        episodes: Sequence[TokenEpisode], texts: Sequence[str], encode: Callable[[str], list[int]], end: int,
        layout: SequenceLayout, recipe: TextRecipe,
    ) -> "Words":  # fmt: skip
        """Encode the captions of the episodes that `Windows.build` keeps, and the texts."""
        kept = [e for e in episodes if len(e.tokens) >= 2]
        known: dict[str, Tensor] = {}

        def ids(text: str) -> Tensor:
            if text not in known:
                known[text] = torch.tensor(encode(text)[: recipe.tokens], dtype=torch.int64)
            return known[text]

        spans = tuple(
            tuple(Span(e.first_frame(c.start), e.first_frame(c.end), ids(c.text)) for c in e.captions) for e in kept
        )
        flat = [id for text in texts for id in (*encode(text), end)]
        return Words(layout, spans, torch.tensor(flat, dtype=torch.int64), end, recipe)

    def add(
        self, ids: Tensor, weights: Tensor, real: Tensor, episodes: Tensor, offsets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Add text to rows of frames → rows as ids int64 and loss weights float32 (B, longest).

        Given are the `ids` and `weights` (B, window · stride) of windows, which of their frames are `real` (B, window),
        and their `episodes` and `offsets` (B,).
        """
        drawn = torch.rand(len(ids), 3, generator=generator).tolist()
        rows = []
        for row, (kind, side, which) in enumerate(drawn):
            if kind < self.recipe.alone and len(self.texts) > 1:
                rows.append(self._alone(ids.shape[1], which))
                continue
            place = int(episodes[row]), int(offsets[row])
            caption = self._caption(*place, int(real[row].sum()), which)
            if kind < 1 - self.recipe.captioned or caption is None:
                rows.append((ids[row], weights[row] * self.recipe.frame_weight))
            else:
                frames = self._predicted(real[row])
                framed = ids[row, :frames], weights[row, :frames] * self.recipe.frame_weight
                rows.append(self._beside(*framed, caption, before=side < 0.5))
        return _stack(rows)

    def captioned(self, windows: Windows, count: int) -> tuple[Tensor, Tensor] | None:
        """Return those of `count` windows at even distances that have a caption, with it behind, in the form of `add`.

        Only captions have loss weights. None where there is no caption.
        """
        places = windows.even_places(count)
        rows = []
        for ids, real, episode, offset in zip(*windows.gather(*places), *places, strict=True):
            caption, frames = self._caption(int(episode), int(offset), int(real.sum()), 0.0), self._predicted(real)
            if caption is not None:
                rows.append(self._beside(ids[:frames], torch.zeros(frames), caption, before=False))
        return _stack(rows) if rows else None

    def _predicted(self, real: Tensor) -> int:
        """Return how many ids of a window come before its repeated frames and its last action, which has no result."""
        return int(real.sum()) * self.layout.stride - self.layout.action_slots

    def _alone(self, length: int, place: float) -> tuple[Tensor, Tensor]:
        start = int(place * max(1, len(self.texts) - length + 1))
        ids = self.texts[start : start + length]
        weights = torch.full((len(ids),), self.recipe.weight)
        weights[0] = 0
        return ids, weights

    def _caption(self, episode: int, first: int, frames: int, which: float) -> Tensor | None:
        """Return one of the captions that cover at least half of a window's frames."""
        spans = self.captions[episode]
        found = [s.ids for s in spans if min(s.stop, first + frames) - max(s.first, first) >= frames / 2]
        return found[int(which * len(found))] if found else None

    def _beside(self, ids: Tensor, weights: Tensor, caption: Tensor, before: bool) -> tuple[Tensor, Tensor]:
        start, stop = self.layout.vocabulary.markers
        none, spoken = torch.zeros(1), torch.full((len(caption),), self.recipe.weight)
        if before:
            spoken[:1] = 0
            return torch.cat([caption, torch.tensor([start]), ids]), torch.cat([spoken, none, weights])
        end = torch.tensor([self.end])
        return (
            torch.cat([torch.tensor([start]), ids, torch.tensor([stop]), caption, end]),
            torch.cat([none, weights, none, spoken, torch.full((1,), self.recipe.weight)]),
        )


def _stack(rows: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Rows of ids and weights → (B, longest) each, padded by ids of weight 0."""
    shape = len(rows), max(len(ids) for ids, _ in rows)
    all_ids, all_weights = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape)
    for row, (ids, weights) in enumerate(rows):
        all_ids[row, : len(ids)], all_weights[row, : len(ids)] = ids, weights
    return all_ids, all_weights
