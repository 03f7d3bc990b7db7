"""Decoding one frame on a GPU: the same pass over the whole frame again and again, recorded as a CUDA graph."""

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling, choose
from framepred.decoding.stream import Stream, frame_logits
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout

MOST_REPLAYED = 8192
"""Tokens of all samples' frames up to which a GPU waits for launches rather than for numbers (bench_rollout)."""


class FramePass:
    """A pass over ids pending (S, p) and a whole frame's tokens (S, N), recorded as a CUDA graph once it is repeated.

    A GPU is done with a pass long before Python has launched its steps one by one. The tokens are replaced by what the
    pass samples; `right` (S,) says how many from the left were as they are sampled.
    """

    def __init__(self, model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, like: Tensor) -> None:
        samples, device, codes = len(like), like.device, layout.codes
        self.pending, self.tokens = torch.empty_like(stream.pending), torch.empty_like(like)
        self.noise = None if sampling.greedy else torch.empty(*like.shape, codes, device=device)
        self.storage = stream.cache.data, stream.cache.prefix
        self.at, self.right = (torch.empty(samples, dtype=torch.int64, device=device) for _ in range(2))
        self._model, self._cache, self._layout, self._sampling = model, stream.cache, layout, sampling
        self._offsets = layout.offsets(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._ran = False

    def fits(self, stream: Stream) -> bool:
        """Say whether this pass reads and writes what the stream's cache holds now."""
        data, prefix = self.storage
        cache = stream.cache
        return cache.data is data and cache.prefix is prefix and self.pending.shape == stream.pending.shape

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
        ids = torch.cat([self.pending, self.tokens[:, :-1] + self._offsets[:-1]], 1)
        logits = frame_logits(self._model, self._cache, ids, self.tokens.shape[1], self._layout, 0, self.at)
        chosen = choose(logits, self.noise, self._sampling)
        self.right.copy_((chosen == self.tokens).long().cumprod(1).sum(1))
        self.tokens.copy_(chosen)


@torch.inference_mode()
def decode_by_replay(
    model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, noise: Tensor | None, guess: Tensor
) -> Tensor:
    """Sample what `decode_speculative` does, reading the whole frame in every pass: the same shapes each time."""
    one = stream.recorded
    if one is None or not one.fits(stream):
        one = stream.recorded = FramePass(model, stream, layout, sampling, guess)
    one.begin(stream.pending, guess, noise)
    right = -1
    while right < layout.frame_tokens - 1:
        right = one.run()
        stream.passes += 1
    stream.cache.length += stream.pending.shape[1] - 1 + layout.frame_tokens
    stream.pending = one.tokens[:, -1:] + layout.offsets(guess.device)[-1]
    return one.tokens.clone()
