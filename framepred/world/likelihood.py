"""Teacher forcing: what the model expects of each real frame, given the real frames before it."""

from collections.abc import Iterator
from itertools import groupby

import torch
from torch import Tensor

from framepred.predictor.cpu import linear
from framepred.world.rollout import window_start
from framepred.world.run import Run


@torch.inference_mode()
def token_logits(run: Run, tokens: Tensor, actions: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, logits float32 (N, V)) for every one of T frames but the first, given their tokens.

    Row n scores each visual token at place n of the frame's grid, in raster order, given the real past:
    the frames and actions of the window that a rollout would see, and the places that the layout's scan has
    before n. `actions` (≥ T - 1) or None for none.
    """
    layout, device = run.layout, run.predictor.embed.weight.device
    count, (first, stop) = layout.frame_tokens, layout.vocabulary.visual
    action_ids = layout.action_ids(actions, len(tokens))
    # Frames that share a window are read in one pass.
    for start, group in groupby(range(1, len(tokens)), lambda frame: window_start(frame, run.window)):
        frames = list(group)
        ids = layout.pack(tokens[start : frames[-1] + 1].cpu(), action_ids[start : frames[-1]]).to(device)
        hidden = run.predictor.hidden(ids[None, :-1])[0]
        for frame in frames:
            # The state after a token speaks of the next one.
            at = (frame - start) * layout.stride + layout.context_tokens - 1
            own = layout.unscanned(hidden[None, at : at + count])[0]
            yield frame, linear(own, run.predictor.head.weight, (first, stop)).float()
