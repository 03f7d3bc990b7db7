"""A reading task that is made from any text: which of four words ends a sentence?"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.predictor.cpu import linear
from framepred.predictor.llama import Llama
from framepred.training.windows import step_generator

OPTIONS = 4
_LEAST, _MOST = 8, 40
_ENDING = re.compile(r"^(.*\s)([a-z]{4,})([.!?])$")


@dataclass(frozen=True)
class Gap:
    """A sentence without its last word, and words that could end it: the first is its own."""

    before: str
    words: tuple[str, ...]
    after: str


def make_gaps(texts: Sequence[str], most: int, seed: int = 0) -> list[Gap]:
    """Return up to `most` sentences of 8 to 40 words, spread evenly, each with three last words of other sentences.

    All four words have about the same length: those of the sentences nearest in that, drawn by the seed.
    """
    sentences = dict.fromkeys(
        " ".join(sentence.split()) for text in texts for sentence in re.split(r"(?<=[.!?])\s+", text)
    )
    fitting = [s for s in sentences if _LEAST <= len(s.split()) <= _MOST]
    found = [m.groups() for s in fitting if (m := _ENDING.match(s))]
    words = sorted({word for _, word, _ in found}, key=lambda w: (len(w), w))
    if len(words) < 4 * OPTIONS:
        return []
    place = {word: i for i, word in enumerate(words)}
    taken = [found[i * len(found) // most] for i in range(most)] if len(found) > most else found
    gaps = []
    for number, (before, word, after) in enumerate(taken):
        near = range(max(0, place[word] - 4 * OPTIONS), min(len(words), place[word] + 4 * OPTIONS))
        others = [words[i] for i in near if words[i] != word]
        order = torch.randperm(len(others), generator=step_generator(seed, 8, number)).tolist()
        gaps.append(Gap(before.rstrip(), (word, *(others[i] for i in order[: OPTIONS - 1])), after))
    return gaps


@torch.inference_mode()
def filled(model: Llama, gaps: Sequence[Gap], encode: Callable[[str], list[int]], size: int) -> list[bool]:
    """Say of each gap whether a model finds its own word likeliest, among the first `size` ids, those of text."""
    right = []
    for gap in gaps:
        rows = [torch.tensor(encode(f"{gap.before} {word}{gap.after}")) for word in gap.words]
        shared = min(_common(rows[0], row) for row in rows[1:])
        scores = [_log_likelihood(model, row, max(1, shared), size) for row in rows]
        right.append(scores[0] > max(scores[1:]))
    return right


def _common(a: Tensor, b: Tensor) -> int:
    """Return how many ids two texts share at their beginning."""
    length = min(len(a), len(b))
    return int((a[:length] == b[:length]).long().cumprod(0).sum())


def _log_likelihood(model: Llama, row: Tensor, first: int, size: int) -> float:
    """Return the log-likelihood of a row's ids from `first` on."""
    ids = row.to(model.embed.weight.device)
    logits = linear(model.hidden(ids[None, :-1])[0, first - 1 :], model.head.weight, (0, size))
    return -float(F.cross_entropy(logits.float(), ids[first:], reduction="sum"))
