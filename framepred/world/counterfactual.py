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

from framepred.predictor.cpu import linear
from framepred.predictor.kv_cache import KVCache
from framepred.sequence.layout import SequenceLayout
from framepred.world.rollout import window_start
from framepred.world.run import Run

_MOST_ACTIONS = 16
_PAST_FRAMES = 3


@dataclass(frozen=True)
class Pasts:
    """What came before in other footage: tokens of C frames each (K, C, …), vocabulary action ids (K, C - 1, slots).

    Where frames are given contexts, of C + 1 frames: the last one's context says what comes after is given.
    """

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
    length, with_context = min(_PAST_FRAMES, run.window - 1), bool(run.layout.context_tokens)
    if len(tokens) < length + with_context:
        return None
    start = (len(tokens) - length) // 2
    stop = start + length
    ids = run.layout.action_ids(actions, stop)[start : stop - 1]
    return Pasts(tokens[start : stop + with_context][None].cpu().long(), ids[None])


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
    layout, model = run.layout, run.predictor
    frame_ids = layout.row_ids(tokens.flatten(1).cpu())
    device = model.embed.weight.device
    action_ids = layout.action_ids(actions, len(tokens))
    for start, group in groupby(range(1, len(tokens)), lambda frame: window_start(frame, run.window)):
        frames = list(group)
        ids = layout.pack(tokens[start : frames[-1]].cpu(), action_ids[start : frames[-1] - 1]).to(device)
        past = KVCache(model.config, 1, len(ids), model.embed.weight)
        model.hidden(ids[None], past)
        for frame in frames:
            at = (frame - start) * layout.stride - layout.action_slots - 1
            branch = KVCache(model.config, len(candidates), at + layout.stride, model.embed.weight)
            branch.data[..., :at, :] = past.data[..., :at, :]
            branch.length = at
            last, rows = (x.expand(len(candidates), *x.shape) for x in (ids[at].cpu(), frame_ids[frame]))
            yield frame, _log_p(run, branch, last, candidates, rows)


@torch.inference_mode()
def after_other_pasts(run: Run, tokens: Tensor, actions: Tensor | None, pasts: Pasts) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (K,)) for every one of T frames but the first, given their tokens.

    The log-likelihood of the whole frame had each of K `pasts` come before it, and then the same action.
    """
    layout, model = run.layout, run.predictor
    own = layout.row_ids(tokens.flatten(1).cpu())[:, layout.context_tokens :]
    action_ids, length = layout.action_ids(actions, len(tokens)), pasts.action_ids.shape[1] + 1
    ids = torch.stack([layout.pack(t[:length], a) for t, a in zip(pasts.tokens, pasts.action_ids, strict=True)])
    contexts = layout.context_ids(pasts.tokens[:, -1].flatten(1)[:, : layout.context_tokens])
    before = ids.shape[1] - 1
    cache = KVCache(model.config, len(pasts), before + layout.stride, model.embed.weight)
    model.hidden(ids[:, :-1].to(model.embed.weight.device), cache)
    for frame in range(1, len(tokens)):
        cache.length = before
        taken, steps = (x.expand(len(pasts), -1) for x in (action_ids[frame - 1], own[frame]))
        yield frame, _log_p(run, cache, ids[:, -1], taken, torch.cat([contexts, steps], 1))


def _log_p(run: Run, cache: KVCache, last: Tensor, action_ids: Tensor, rows: Tensor) -> Tensor:
    """Log-likelihood (R,) of a frame after what the cache holds, each row's `last` and its action.

    Of the ids (R, K + N) of the frame the own ones count, not its context's.
    """
    layout = run.layout
    first, stop = layout.vocabulary.visual
    real = rows[:, layout.context_tokens :]
    # The last token of the past is read again: where there are no actions and contexts, it speaks of the first.
    inputs = torch.cat([last[:, None], action_ids, rows[:, :-1]], 1).to(cache.data.device)
    hidden = run.predictor.hidden(inputs, cache)[:, -layout.frame_tokens :]
    logits = linear(hidden, run.predictor.head.weight, (first, stop)).double()
    wanted = (real - first).to(logits.device)
    return -F.cross_entropy(logits.transpose(1, 2), wanted, reduction="none").sum(1).cpu()
