"""Decoding one frame token by token: the reference."""

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling, choose
from framepred.decoding.stream import Stream, frame_logits
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout


@torch.inference_mode()
def decode_sequential(
    model: Llama, stream: Stream, layout: SequenceLayout, sampling: Sampling, noise: Tensor | None, guess: Tensor
) -> Tensor:
    """Sample the next frame's tokens (S, N) one pass a token: the reference. `guess` is not used."""
    offsets = layout.offsets(guess.device)
    tokens = torch.empty_like(guess)
    for slot in range(layout.frame_tokens):
        logits = frame_logits(model, stream.cache, stream.pending, 1, layout, slot)
        stream.passes += 1
        chosen = choose(logits, None if noise is None else noise[:, slot : slot + 1], sampling)
        tokens[:, slot] = chosen[:, 0]
        stream.pending = chosen + offsets[slot]
    return tokens
