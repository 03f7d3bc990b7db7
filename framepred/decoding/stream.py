"""A sequence that is being written: the cache, the ids that wait, and what is read off a pass."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling, gumbel_noise
from framepred.predictor.cpu import linear
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout, scan_order


@dataclass
class Stream:
    """A sequence being written: what is in the cache, and ids (S, p) that are not in it yet.

    `rate` is the share of the last frame's tokens that its guess had right in the first pass, of those after right
    ones. `recorded` is the pass that `cuda_graph` recorded for this stream.
    """

    cache: KVCache
    pending: Tensor
    passes: int = 0
    rate: float = 0.0
    recorded: Any = None


def prefill(model: Llama, ids: Tensor, samples: int, capacity: int, pending: int = 1) -> Stream:
    """Read ids (1 or S, L) but the last `pending` into a fresh cache; what all samples begin with is read once."""
    known = ids[:, :-pending]
    if len(known) > 1 and bool((known == known[:1]).all()):
        known = known[:1]
    stream = Stream(KVCache(model.config, len(known), capacity, model.embed.weight), ids[:, -pending:])
    if known.shape[1]:
        model.hidden(known, stream.cache)
        stream.passes += 1
    return share(stream, samples)


def share(stream: Stream, samples: int) -> Stream:
    """Let S samples go on from the one row of a stream, where it is one; they share what it has stored."""
    if stream.cache.rows == 1 < samples:
        stream.cache = stream.cache.fork(torch.zeros(samples, dtype=torch.int64, device=stream.pending.device))
    stream.pending = stream.pending.expand(stream.cache.rows, -1)
    return stream


def range_logits(model: Llama, cache: KVCache, ids: Tensor, count: int, legal: tuple[int, int]) -> Tensor:
    """Run ids (S, L) through the model → logits (S, count, legal ids) after each of the last `count`."""
    return linear(model.hidden(ids, cache)[:, -count:], model.head.weight, legal)


def frame_logits(
    model: Llama, cache: KVCache, ids: Tensor, count: int, layout: SequenceLayout, slot: int,
    at: Tensor | None = None, rows: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Run ids (S, L) through the model → logits (S, count, V) of a frame's codes in `count` slots from `slot` on."""
    hidden = model.hidden(ids, cache, at, rows)[:, -count:]
    if not layout.cells:
        return linear(hidden, model.head.weight, layout.vocabulary.visual)
    places = scan_order(layout.scan, layout.grid)[slot : slot + count]
    weights = model.head.weight[slice(*layout.vocabulary.visual)].unflatten(0, (layout.frame_tokens, layout.codes))
    weights = weights[slot : slot + count] if layout.scan == "raster" else weights[places.to(weights.device)]
    return (hidden.transpose(0, 1) @ weights.mT).transpose(0, 1)


def frame_noise(layout: SequenceLayout, sampling: Sampling, samples: Tensor, frame: int) -> Tensor | None:
    """Return the noise (S, N, legal ids) of one frame in the order of its scan; None where decoding is greedy."""
    if sampling.greedy:
        return None
    positions = scan_order(layout.scan, layout.grid).to(samples.device)
    return gumbel_noise(sampling.seed, samples, frame, positions, layout.codes)
