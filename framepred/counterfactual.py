"""How likely a frame would be had something else come before it: another action, or another past.

The first asks which action was really taken (the world model as its own inverse dynamics), the second
whether the frame follows from its past at all, or could as well have followed a stranger's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.checkpoint import Run
from framepred.kv_cache import KVCache
from framepred.linear import linear
from framepred.rollout import window_start
from framepred.sequence import SequenceLayout

_MOST_ACTIONS = 16
_PAST_FRAMES = 3


@dataclass(frozen=True)
class Pasts:
    """What came before in other footage: tokens of C frames each (K, C, …), vocabulary action ids (K, C - 1, slots)."""

    tokens: Tensor
    action_ids: Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def without(self, row: int | None) -> "Pasts":
        """All but one of them."""
        kept = [k for k in range(len(self)) if k != row]
        return Pasts(self.tokens[kept], self.action_ids[kept])

    def without_actions(self, layout: SequenceLayout) -> "Pasts":
        """The same frames as a run sees them that is told no actions."""
        return Pasts(self.tokens, torch.full_like(self.action_ids, layout.vocabulary.no_action))


def take_past(run: Run, tokens: Tensor, actions: Tensor | None) -> Pasts | None:
    """Take one past from the middle of footage, the tokens of T frames; None where it is too short."""
    length = min(_PAST_FRAMES, run.window - 1)
    if len(tokens) < length:
        return None
    start = (len(tokens) - length) // 2
    stop = start + length
    ids = run.layout.action_ids(actions, stop)[start : stop - 1]
    return Pasts(tokens[start:stop][None].cpu().long(), ids[None])


def join_pasts(parts: Sequence[Pasts]) -> Pasts | None:
    """Join pasts of several footages; None of none."""
    if not parts:
        return None
    return Pasts(torch.cat([p.tokens for p in parts]), torch.cat([p.action_ids for p in parts]))


def candidate_actions(layout: SequenceLayout, action_ids: Tensor) -> Tensor:
    """Vocabulary action ids (T, slots) of footage → what else could have been done: distinct ids (K, slots).

    All of a small discrete space; of any other the 16 actions that the footage takes most often.
    """
    space = layout.actions
    assert space is not None
    if space.kind == "discrete" and space.count <= _MOST_ACTIONS:
        return torch.arange(*layout.vocabulary.action)[:, None]
    rows, counts = action_ids.unique(dim=0, return_counts=True)
    return rows[counts.argsort(descending=True, stable=True)[:_MOST_ACTIONS]]


@torch.inference_mode()
def after_other_actions(run: Run, tokens: Tensor, actions: Tensor, candidates: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (K,)) for every one of T frames but the first, given their tokens.

    The log-likelihood of the whole frame had each of `candidates` (K, slots) led to it. What happened
    before is as given, by `actions` (≥ T - 1) as well.
    """
    layout, model, steps = run.layout, run.predictor, run.layout.steps(tokens)
    device = model.embed.weight.device
    action_ids = layout.action_ids(actions, len(tokens))
    for start, group in groupby(range(1, len(tokens)), lambda frame: window_start(frame, run.window)):
        frames = list(group)
        ids = layout.pack(tokens[start : frames[-1]].cpu(), action_ids[start : frames[-1] - 1]).to(device)
        past = KVCache(model.config, 1, len(ids), model.embed.weight)
        model.hidden(ids[None], past)
        for frame in frames:
            at = layout.start(frame - start) - layout.action_slots - 1
            branch = KVCache(model.config, len(candidates), at + layout.stride, model.embed.weight)
            branch.data[..., :at, :] = past.data[..., :at, :]
            branch.length = at
            yield frame, _log_p(run, branch, ids[at].cpu().expand(len(candidates)), candidates, steps[frame])


@torch.inference_mode()
def after_other_pasts(run: Run, tokens: Tensor, actions: Tensor | None, pasts: Pasts) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (K,)) for every one of T frames but the first, given their tokens.

    The log-likelihood of the whole frame had each of K `pasts` come before it, and then the same action.
    """
    layout, model, steps = run.layout, run.predictor, run.layout.steps(tokens)
    action_ids = layout.action_ids(actions, len(tokens))
    rows = [layout.pack(t, a) for t, a in zip(pasts.tokens, pasts.action_ids, strict=True)]
    ids = torch.stack(rows)
    before = ids.shape[1] - 1
    cache = KVCache(model.config, len(pasts), before + layout.stride, model.embed.weight)
    model.hidden(ids[:, :-1].to(model.embed.weight.device), cache)
    for frame in range(1, len(tokens)):
        cache.length = before
        yield frame, _log_p(run, cache, ids[:, -1], action_ids[frame - 1].expand(len(pasts), -1), steps[frame])


def _log_p(run: Run, cache: KVCache, last: Tensor, action_ids: Tensor, frame: Tensor) -> Tensor:
    """Log-likelihood (K,) of a frame's tokens (N,) after what the cache holds, each row's `last` and its action."""
    layout = run.layout
    first, stop = layout.vocabulary.visual
    real = (frame.long().cpu() + first).expand(len(last), -1)
    # The last token of the past is read again: where there are no actions, it speaks of the first.
    inputs = torch.cat([last[:, None], action_ids, real[:, :-1]], 1).to(cache.data.device)
    hidden = run.predictor.hidden(inputs, cache)[:, layout.action_slots :]
    logits = linear(hidden, run.predictor.head.weight, (first, stop)).double()
    wanted = (real - first).to(logits.device)
    return -F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").sum(1).cpu()
