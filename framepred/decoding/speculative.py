"""Decoding one frame in few passes: a guess of it is verified, and the tokens are those of one at a time."""

import math

import torch
from torch import Tensor

from framepred.decoding.cuda_graph import MOST_REPLAYED, decode_by_replay
from framepred.decoding.sampling import Sampling, choose
from framepred.decoding.stream import Stream, frame_logits
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout

ROOM = {"cpu": 24, "cuda": 16384}
"""Tokens of all samples that a pass reads in hardly more time than a few: below it waits for weights or launches."""
FIRST = 64
"""Tokens that a frame's first pass reads at least: what it samples for the last of them settles sooner."""


def pass_length(rows: int, rate: float, device: torch.device) -> int:
    """Return how many slots of each row a pass reads, if a guess that follows right ones is right at this rate.

    As far as the guess is right on the average, or as there is room; by eights at least, of which products are made.
    """
    expected = 1 / (1 - min(rate, 0.999))
    return max(8, ROOM.get(device.type, ROOM["cuda"]) // rows, math.ceil(expected))


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
    if guess.is_cuda and guess.numel() <= MOST_REPLAYED:
        return decode_by_replay(model, stream, layout, sampling, noise, guess)
    offsets, count = layout.offsets(guess.device), layout.frame_tokens
    device, samples = guess.device, len(guess)
    # A slot's input, and behind it what is guessed or sampled there, which is the next slot's input.
    line = torch.cat([stream.pending[:, -1:], guess + offsets], 1)
    sampled = line[:, 1:]
    base = stream.cache.length + stream.pending.shape[1] - 1
    settled, rows, first_pass, rate = [0] * samples, list(range(samples)), True, stream.rate
    while rows:
        # Left over is read in eights, some of it again: a product of a new shape takes oneDNN longer than its rows do.
        left = -(-(count - min(settled[row] for row in rows)) // 8) * 8
        # Cells have weights of their own, which all rows read alike: a frame of those is read whole.
        reach = max(pass_length(len(rows), rate, device), FIRST // samples if first_pass else 0)
        length = count if layout.cells else min(reach, left, count)
        starts = [min(settled[row], count - length) for row in rows]
        where, at, some = _slots(starts, rows, samples, length, device)
        ids = line[where]
        if first_pass:
            ids = torch.cat([stream.pending[:, :-1], ids], 1)
        elif at is None:
            stream.cache.length = base + starts[0]
        at = None if at is None else at + base
        logits = frame_logits(model, stream.cache, ids, length, layout, starts[0], at, some)
        stream.passes += 1
        chosen = choose(logits, None if noise is None else noise[where], sampling) + offsets[where[1]]
        matched = (chosen == sampled[where]).long().cumprod(1).sum(1).tolist()
        sampled[where] = chosen
        rate = sum(matched) / (sum(matched) + sum(right < length for right in matched))
        if first_pass:
            stream.rate = rate
        # Inputs up to the last match are cached as they should be; the corrected one is read again.
        for row, start, right in zip(rows, starts, matched, strict=True):
            # Of numbers that are none, nothing need match what was read before: it ends all the same.
            settled[row] = min(count, max(settled[row] + 1, start + min(right + 1, length)))
        unfinished = [row for row in rows if settled[row] < count]
        # To leave some out, the others' keys and values are copied in every pass: worth it once half are done.
        if 2 * len(unfinished) <= len(rows):
            rows = unfinished
        first_pass = False
    stream.cache.length = base + count
    stream.pending = line[:, -1:]
    return sampled - offsets


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
