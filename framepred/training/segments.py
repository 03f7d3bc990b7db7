"""Footage → token segments for the predictor: each begins with true pictures and goes on with what is given back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from framepred.tokenizer.temporal_net import TemporalNet
from framepred.training.streams import Footage, scaled, unscaled


@dataclass(frozen=True)
class Segments:
    """Tokens of M segments of S frames: context int16 (M, S, K), own int16 (M, S, N), actions int64 (M, S).

    `actions[:, t]` is the one after frame t, -1 where it is not given.
    """

    context: Tensor
    own: Tensor
    actions: Tensor


def segment_starts(footage: Footage, lengths: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """Return where segments begin, int64 (M,): each episode is cut from a random place on."""
    starts, begin = [], 0
    for length in lengths.tolist():
        shift = int(torch.randint(max(1, min(frames, length - frames + 1)), (1,), generator=generator))
        starts += list(range(begin + shift, begin + length - frames + 1, frames))
        begin += length
    return torch.tensor(starts, dtype=torch.int64)


@torch.inference_mode()
def encode_segments(
    net: TemporalNet, footage: Footage, actions: Tensor, starts: Tensor, frames: int, true_frames: Tensor, blind: Tensor
) -> tuple[Segments, Tensor]:
    """Code segments from `starts` (M,) on; the first `true_frames` (M,) are coded given true pictures.

    `actions` int64 (N,) are the ids after each frame; a `blind` (M,) segment knows none. Also returns the last frames
    as they were given back, uint8 (M, 3, H, W).
    """
    shape = net.shape
    pictures = footage.pictures(starts, starts, shape.past)
    context, own, taken = [], [], []
    made = pictures[:, -1]
    for t in range(frames):
        at = starts + t
        rows = footage.action_rows(at, starts, blind, shape.past_actions)
        truth = footage.frames[at]
        with torch.autocast(at.device.type, torch.bfloat16, enabled=at.is_cuda):
            past = net.past(scaled(pictures), rows)
            code, digits = net.codes(net.code(past, net.picture(past, None), scaled(truth)))
            made = unscaled(net.picture(past, code))
            context.append(net.context_tokens(past)[1].flatten(1).short())
        own.append(net.codes.ids(digits).flatten(1).short())
        taken.append(torch.where(blind, -1, actions[at]))
        following = torch.where((t < true_frames)[:, None, None, None], truth, made)
        pictures = torch.cat([pictures[:, 1:], following[:, None]], 1)
    return Segments(torch.stack(context, 1), torch.stack(own, 1), torch.stack(taken, 1)), made
