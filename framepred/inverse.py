"""Which action was taken? The world model as its own inverse dynamics, by Bayes' rule over legal actions."""

from collections.abc import Iterator
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.checkpoint import Run
from framepred.predictor import KVCache
from framepred.rollout import window_start
from framepred.sequence import SequenceLayout

_MOST = 16


def candidate_actions(layout: SequenceLayout, action_ids: Tensor) -> Tensor:
    """Action ids (T, slots) of a clip → what else could have been done: distinct ids (K, slots).

    All ids of a small discrete space; of any other, the 16 actions that the clip takes most often.
    """
    space = layout.actions
    assert space is not None
    if space.kind == "discrete" and space.count <= _MOST:
        return torch.arange(*layout.vocabulary.action)[:, None]
    rows, counts = action_ids.unique(dim=0, return_counts=True)
    return rows[counts.argsort(descending=True, stable=True)[:_MOST]]


@torch.inference_mode()
def action_likelihoods(
    run: Run, tokens: Tensor, actions: Tensor, candidates: Tensor
) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (1 + K,)) for every frame of tokens int64 (T, h, w) but the first.

    Element 0 is the log-likelihood of the whole frame after the action given, the others after each of
    `candidates` (K, slots) in its place. What happened before is as given.
    """
    layout, model = run.layout, run.predictor
    device = model.embed.weight.device
    slots, count, (first, stop) = layout.action_slots, layout.frame_tokens, layout.vocabulary.visual
    action_ids = layout.action_ids(actions, len(tokens))
    rows = 1 + len(candidates)
    for start, group in groupby(range(1, len(tokens)), lambda frame: window_start(frame, run.window)):
        frames = list(group)
        ids = layout.pack(tokens[start : frames[-1] + 1].cpu(), action_ids[start : frames[-1]]).to(device)
        past = KVCache(model.config, 1, len(ids), model.embed.weight)
        model.hidden(ids[None, : (frames[-1] - start) * layout.stride - slots], past)
        for frame in frames:
            at = (frame - start) * layout.stride - slots
            branch = KVCache(model.config, rows, at + slots + count - 1, model.embed.weight)
            branch.data[..., :at, :] = past.data[..., :at, :]
            branch.length = at
            real = ids[at + slots : at + slots + count]
            tried = torch.cat([action_ids[frame - 1][None], candidates]).to(device)
            inputs = torch.cat([tried, real[:-1].expand(rows, -1)], 1)
            hidden = model.hidden(inputs, branch)[:, slots - 1 :]
            logits = F.linear(hidden, model.head.weight[first:stop]).double()
            wanted = (real - first).expand(rows, -1)
            yield frame, -F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view(rows, -1).sum(1)
