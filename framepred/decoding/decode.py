"""Decoding one frame: token by token, or guessed whole and verified, with identical results."""

from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling, choose, gumbel_noise
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.linear import linear
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout, scan_order

_GPU_REACH = 16384
"""Tokens that a pass reads at most on a GPU."""
_FIRST = 64
"""Tokens that a frame's first pass reads at least: what it samples for those far off settles sooner."""
_REPLAYED = 8192
"""Tokens of all samples' frames up to which a GPU waits for launches rather than for numbers (bench_rollout)."""


def _length(rows: int, rate: float, device: torch.device) -> int:
    """Return how many slots of each row a pass reads, if a guess that follows right ones is right at this rate.

    On a GPU all that it is fast with. On a CPU what gives most right tokens for its time, which is that of each token,
    of 16 more, of one a row, and of another where rows part: from as far as a guess settles in (bench_rollout) on.
    """
    if device.type != "cpu":
        return max(1, _GPU_REACH // rows)
    near = max(1, int(min(24 * rows**0.5, 96)) // rows)
    rate = min(rate, 0.999)

    def right_for_its_time(length: int) -> float:
        parted = length > 1 and rows > 1
        return (1 - rate**length) / (16 + rows * (length + 1 + parted))

    return max((near * 2**i for i in range(8)), key=right_for_its_time)


@dataclass
class Stream:
    """A sequence being written: what is in the cache, and ids (S, p) that are not in it yet.

    `rate` is how many of the last frame's tokens were guessed right in its first pass, of those after right ones.
    """

    cache: KVCache
    pending: Tensor
    passes: int = 0
    rate: float = 0.0
    recorded: "FramePass | None" = None


def prefill(model: Llama, stream_ids: Tensor, samples: int, capacity: int) -> Stream:
    """Read ids (1 or S, L) into a fresh cache; one row is computed once and shared by all samples."""
    cache = KVCache(model.config, len(stream_ids), capacity, model.embed.weight)
    stream = Stream(cache, stream_ids[:, -1:].expand(samples, -1))
    if stream_ids.shape[1] > 1:
        model.hidden(stream_ids[:, :-1], cache)
        stream.passes += 1
    if len(stream_ids) != samples:
        cache.share(samples)
    return stream


def _logits(
    model: Llama, cache: KVCache, ids: Tensor, count: int, legal: tuple[int, int],
    at: Tensor | None = None, rows: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Run ids (S, L) through the model → logits (S, count, legal ids) after each of the last `count`."""
    hidden = model.hidden(ids, cache, at, rows)[:, -count:]
    return linear(hidden, model.head.weight, legal)


def frame_noise(layout: SequenceLayout, sampling: Sampling, samples: Tensor, frame: int) -> Tensor | None:
    """Return the noise (S, N, legal ids) of one frame in the order of its scan; None where decoding is greedy."""
    if sampling.temperature == 0:
        return None
    start, stop = layout.vocabulary.visual
    positions = scan_order(layout.scan, layout.grid).to(samples.device)
    return gumbel_noise(sampling.seed, samples, frame, positions, stop - start)


@torch.inference_mode()
def decode_sequential(
    model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, noise: Tensor | None, guess: Tensor
) -> Tensor:
    """Sample the next frame's tokens (S, N) one pass a token: the reference. `guess` is not used."""
    first = layout.vocabulary.visual[0]
    tokens = torch.empty_like(guess)
    for slot in range(layout.frame_tokens):
        logits = _logits(model, stream.cache, stream.pending, 1, layout.vocabulary.visual)
        stream.passes += 1
        chosen = choose(logits, None if noise is None else noise[:, slot : slot + 1], sampling)
        tokens[:, slot] = chosen[:, 0]
        stream.pending = chosen + first
    return tokens


@torch.inference_mode()
def decode_speculative(
    model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, noise: Tensor | None, guess: Tensor
) -> Tensor:
    """Sample the same tokens (S, N) in fewer passes, by verifying a guess of the whole frame.

    A pass reads the guess and samples every slot under the frame's noise. Where the guess equals the
    sample from the left, both are right, and the first that differs is right too, for its past is.
    The rest takes what the pass sampled: with shared noise it settles fast (arXiv 2510.24211). A pass
    reaches no further than pays, with many samples at once over fewer slots of each, and each sample
    goes on from where its own guess failed; one that is done reads its end again until others are done too.
    """
    if guess.is_cuda and guess.numel() <= _REPLAYED:
        return _decode_by_replay(model, stream, layout, sampling, noise, guess)
    first, count = layout.vocabulary.visual[0], layout.frame_tokens
    device, samples = guess.device, len(guess)
    # A slot's input, and behind it what is guessed or sampled there, which is the next slot's input.
    line = torch.cat([stream.pending[:, -1:], guess + first], 1)
    sampled = line[:, 1:]
    base = stream.cache.length + stream.pending.shape[1] - 1
    settled, rows, first_pass, rate = [0] * samples, list(range(samples)), True, stream.rate
    while rows:
        # Left over is read in eights, some of it again: a product of a new shape takes oneDNN longer than its rows do.
        left = -(-(count - min(settled[row] for row in rows)) // 8) * 8
        reach = _length(len(rows), rate, device)
        length = min(max(reach, _FIRST // samples) if first_pass else reach, left, count)
        starts = [min(settled[row], count - length) for row in rows]
        where, at, some = _slots(starts, rows, samples, length, device)
        ids = line[where]
        if first_pass:
            ids = torch.cat([stream.pending[:, :-1], ids], 1)
        elif at is None:
            stream.cache.length = base + starts[0]
        at = None if at is None else at + base
        logits = _logits(model, stream.cache, ids, length, layout.vocabulary.visual, at, some)
        stream.passes += 1
        chosen = choose(logits, None if noise is None else noise[where], sampling) + first
        matched = (chosen == sampled[where]).long().cumprod(1).sum(1).tolist()
        sampled[where] = chosen
        rate = sum(matched) / (sum(matched) + sum(right < length for right in matched))
        if first_pass:
            stream.rate = rate
        # Inputs up to the last match are cached as they should be; the corrected one is read again.
        for row, start, right in zip(rows, starts, matched, strict=True):
            settled[row] = start + min(right + 1, length)
        unfinished = [row for row in rows if settled[row] < count]
        # To leave some out, the others' keys and values are copied in every pass: worth it once half are done.
        if 2 * len(unfinished) <= len(rows):
            rows = unfinished
        first_pass = False
    stream.cache.length = base + count
    stream.pending = line[:, -1:]
    return sampled - first


def _slots(
    starts: list[int], rows: list[int], samples: int, length: int, device: torch.device
) -> tuple[tuple[Tensor | slice, Tensor | slice], Tensor | None, Tensor | None]:
    """Return where `length` slots from each row's start lie in (S, N), and the starts and rows (R,) where they differ.

    All rows from one start are a slice: nothing is copied.
    """
    if len(rows) == samples and min(starts) == max(starts):
        return (slice(None), slice(starts[0], starts[0] + length)), None, None
    which, at = torch.tensor([rows, starts], device=device)
    some = which if len(rows) < samples else None
    return (which[:, None], at[:, None] + torch.arange(length, device=device)), at, some


class FramePass:
    """A pass over ids pending (S, p) and a whole frame's tokens (S, N), recorded as a CUDA graph once it is repeated.

    A GPU is done with a pass long before Python has launched its steps one by one. The tokens are replaced by what the
    pass samples; `right` (S,) says how many from the left were as they are sampled.
    """

    def __init__(self, model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, like: Tensor) -> None:
        samples, device, (first, stop) = len(like), like.device, layout.vocabulary.visual
        self.pending, self.tokens = torch.empty_like(stream.pending), torch.empty_like(like)
        self.noise = None if sampling.temperature == 0 else torch.empty(*like.shape, stop - first, device=device)
        self.at, self.right = (torch.empty(samples, dtype=torch.int64, device=device) for _ in range(2))
        self._model, self._cache, self._legal, self._sampling = model, stream.cache, (first, stop), sampling
        self._graph: torch.cuda.CUDAGraph | None = None
        self._ran = False

    def begin(self, pending: Tensor, tokens: Tensor, noise: Tensor | None) -> None:
        """Take what a frame begins with; its ids stand behind what the cache holds."""
        self.pending.copy_(pending)
        self.tokens.copy_(tokens)
        self.at.fill_(self._cache.length)
        if noise is not None and self.noise is not None:
            self.noise.copy_(noise)

    def run(self) -> int:
        """Do a pass; return how many tokens from the left are right in every sample."""
        if self._ran and self._graph is None and self.tokens.is_cuda:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._pass()
        if self._graph is None:
            self._pass()
        else:
            self._graph.replay()
        self._ran = True
        return int(self.right.min())

    def _pass(self) -> None:
        ids = torch.cat([self.pending, self.tokens[:, :-1] + self._legal[0]], 1)
        logits = _logits(self._model, self._cache, ids, self.tokens.shape[1], self._legal, self.at)
        chosen = choose(logits, self.noise, self._sampling)
        self.right.copy_((chosen == self.tokens).long().cumprod(1).sum(1))
        self.tokens.copy_(chosen)


def _decode_by_replay(
    model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, noise: Tensor | None, guess: Tensor
) -> Tensor:
    """Sample what `decode_speculative` does, reading the whole frame in every pass: the same shapes each time."""
    one = stream.recorded
    if one is None or one.pending.shape != stream.pending.shape:
        one = stream.recorded = FramePass(model, stream, layout, sampling, guess)
    one.begin(stream.pending, guess, noise)
    right = -1
    while right < layout.frame_tokens - 1:
        right = one.run()
        stream.passes += 1
    stream.cache.length += stream.pending.shape[1] - 1 + layout.frame_tokens
    stream.pending = one.tokens[:, -1:] + layout.vocabulary.visual[0]
    return one.tokens.clone()


DECODERS = {"sequential": decode_sequential, "speculative": decode_speculative}
