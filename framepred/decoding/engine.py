"""What a session drives: an engine reads ids and says what comes next."""

from typing import Protocol

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling, choose, gumbel_noise
from framepred.decoding.sequential import decode_sequential
from framepred.decoding.speculative import decode_speculative
from framepred.decoding.stream import Stream, frame_noise, prefill, range_logits, share
from framepred.errors import FramepredError
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout

DECODERS = {"sequential": decode_sequential, "speculative": decode_speculative}


class Engine(Protocol):
    """Draws and weighs what follows a past; the answers are functions of the arguments alone.

    A `past` is ids int64, (S, L) or (1, L) where all samples share it. `passes` is what the model has run so far.
    """

    @property
    def passes(self) -> int: ...

    def frame(self, past: Tensor, frame: int, guess: Tensor) -> Tensor:
        """Draw the tokens (S, N) of frame number `frame`, in the order of the scan; `guess` (S, N) may help."""
        ...

    def text(self, past: Tensor, most: int) -> Tensor:
        """Draw text ids (S, n), at most `most` and no more once every sample has ended its text."""
        ...

    def score(self, past: Tensor, new: Tensor, legal: tuple[int, int]) -> Tensor:
        """Read ids (R, n) behind a past; return the logits (R, n, legal ids) that were there for each of them."""
        ...

    def fork(self, rows: Tensor) -> "Engine":
        """Return an engine whose samples go on from these samples (R,) of this one."""
        ...


class LlamaEngine:
    """framepred's own engine: a Llama, a decoder, and a cache that remembers what was read.

    The cache only saves time: it is cut back to where a past differs from what was read, or filled anew. So a session
    may step, fork and rewind in any order. FramepredError for a decoder that is not known.
    """

    def __init__(
        self, model: Llama, layout: SequenceLayout, sampling: Sampling, samples: int, capacity: int,
        decoder: str = "auto",
    ) -> None:  # fmt: skip
        if decoder not in ("auto", *DECODERS):
            raise FramepredError(f"decoder {decoder!r} is not known; give one of auto, {', '.join(DECODERS)}")
        self._model, self._layout, self._sampling, self._capacity = model, layout, sampling, capacity
        self._decoder, self._samples = decoder, torch.arange(samples, device=model.embed.weight.device)
        self._stream: Stream | None = None
        self._read = torch.empty(1, 0, dtype=torch.int64)
        self._earlier_passes = 0

    @property
    def passes(self) -> int:
        return self._earlier_passes + (self._stream.passes if self._stream else 0)

    @torch.inference_mode()
    def frame(self, past: Tensor, frame: int, guess: Tensor) -> Tensor:
        stream = self._continue(past, len(self._samples))
        noise = frame_noise(self._layout, self._sampling, self._samples, frame)
        decode = DECODERS["speculative" if self._decoder == "auto" else self._decoder]
        tokens = decode(self._model, stream, self._layout, self._sampling, noise, guess)
        self._note(past, tokens + self._layout.offsets(tokens.device))
        return tokens

    @torch.inference_mode()
    def text(self, past: Tensor, most: int) -> Tensor:
        size, end = self._layout.vocabulary.text_size, self._model.config.end_of_text
        stream, made = self._continue(past, len(self._samples)), past[:, :0].expand(len(self._samples), -1)
        while made.shape[1] < most and (end is None or not bool((made == end).any(1).all())):
            logits = range_logits(self._model, stream.cache, stream.pending, 1, (0, size))
            stream.passes += 1
            position = torch.tensor([made.shape[1]], device=past.device)
            noise = (
                None if self._sampling.greedy else gumbel_noise(self._sampling.seed, self._samples, 0, position, size)
            )
            stream.pending = choose(logits, noise, self._sampling)
            made = torch.cat([made, stream.pending], 1)
        self._note(past, made)
        return made

    @torch.inference_mode()
    def score(self, past: Tensor, new: Tensor, legal: tuple[int, int]) -> Tensor:
        rows = max(len(past), len(new))
        stream = self._continue(past, rows)
        ids = torch.cat([stream.pending, new[:, :-1].expand(len(stream.pending), -1)], 1)
        logits = range_logits(self._model, stream.cache, ids, new.shape[1], legal)
        stream.passes += 1
        self._note(past, new)
        return logits[:rows]

    @torch.inference_mode()
    def fork(self, rows: Tensor) -> "LlamaEngine":
        made = LlamaEngine(
            self._model, self._layout, self._sampling, len(rows), self._capacity, self._decoder
        )  # fmt: skip
        if self._stream is not None:
            rows = rows.to(self._samples.device)
            cache = self._stream.cache.fork(rows if self._stream.cache.rows > 1 else torch.zeros_like(rows))
            made._stream = Stream(cache, self._stream.pending[:1], rate=self._stream.rate)
            made._read = self._read if len(self._read) == 1 else self._read[rows]
        return made

    def _continue(self, past: Tensor, rows: int) -> Stream:
        """Return a stream of `rows` or more that holds a past (1 or R, L) but for its last ids, which are pending.

        Pending is always what stands between two frames, with the last token of the one before: a pass reads the same
        ids whether or not the cache was cut back before, so its rounding is the same too.
        """
        pending = min(past.shape[1], 1 + self._layout.action_slots + self._layout.context_tokens)
        stream, keep = self._stream, past.shape[1] - pending
        if stream is None or (rows > 1 and stream.cache.rows not in (1, rows)) or self._common(past) < keep:
            self._earlier_passes = self.passes
            self._stream = prefill(self._model, past, rows, self._capacity, pending)
            return self._stream
        stream.cache.truncate(keep)
        stream.pending = past[:, keep:]
        return share(stream, rows)

    def _common(self, past: Tensor) -> int:
        """Return how many ids from the first are those that the cache holds, in every sample."""
        length = min(past.shape[1], self._read.shape[1])
        same = (past[:, :length] == self._read[:, :length]).all(0)
        return int(same.long().cumprod(0).sum())

    def _note(self, past: Tensor, new: Tensor) -> None:
        """Remember that the cache holds a past (1 or R, L) and new ids (1 or R, n) but the last."""
        rows = max(len(past), len(new))
        self._read = torch.cat([past.expand(rows, -1), new[:, :-1].expand(rows, -1)], 1)
