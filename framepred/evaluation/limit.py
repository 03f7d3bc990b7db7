"""Before a predictor is trained: can the tokenizer that it is given show these videos better than copying does?"""

from collections.abc import Sequence
from pathlib import Path

import torch

from framepred.errors import FramepredError
from framepred.evaluation.metrics import mse, psnr_of
from framepred.evaluation.verdict import HORIZON, held_out_episodes
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.training.start import Start

_FRAMES = 48
"""Frames that are looked at: the first ones, wherever what is held out begins, for a long video takes long to read."""


@torch.inference_mode()
def doubt_tokenizer(folder: Path, sources: Sequence[str], start: Start) -> str | None:
    """Say that a run's tokenizer gives frames of a held-out episode back worse than copying one for 8 frames is.

    None where it does not, where a tokenizer is trained first or sees the past, or where no pictures are at hand.
    """
    held = held_out_episodes(sources, start.held_out)
    if "tokenizer" in start.steps or not held:
        return None
    tokenizer, episode = load_tokenizer(folder / "tokenizer"), held[0][0]
    if tokenizer.past:
        return None
    try:
        frames = episode.read(tokenizer.frame_size, start.rates[0], _FRAMES, with_actions=False).frames
    except FramepredError:
        return None
    if len(frames) <= HORIZON:
        return None
    ceiling = psnr_of(mse(tokenizer.decode(tokenizer.encode(frames)), frames).mean())
    copied = [mse(frames[:-ahead], frames[ahead:]).mean() for ahead in range(1, HORIZON + 1)]
    copying = psnr_of(torch.stack(copied).mean())
    if ceiling >= copying:
        return None
    return (
        f"the tokenizer that training starts with gives {episode.name} back at {ceiling:.1f} dB, copying the last "
        f"frame has {copying:.1f} dB over {HORIZON} frames: a predictor can hardly be better there; --init-from none "
        "trains a tokenizer too"
    )
