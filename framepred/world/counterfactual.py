"""How likely a frame would be had something else come before it: another action, or another past.

The first asks which action was really taken (the world model as its own inverse dynamics), the second
whether the frame follows from its past at all, or could as well have followed a stranger's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from framepred.sequence.layout import SequenceLayout
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


def after_other_actions(run: Run, tokens: Tensor, actions: Tensor, candidates: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (K,)) for every one of T frames but the first, given their tokens.

    The log-likelihood of the whole frame had each of `candidates` (K, slots) led to it. What happened
    before is as given, by `actions` (≥ T - 1) as well.
    """
    rows, action_ids = tokens.flatten(1), run.layout.action_ids(actions, len(tokens))
    session = run.token_session(tokens[:1], None)
    for frame in range(1, len(tokens)):
        row = rows[frame : frame + 1]
        yield frame, -session.fork(len(candidates)).observe_tokens(row, candidates).nll.sum(1).cpu()
        session.observe_tokens(row, action_ids[frame - 1 : frame])


def after_other_pasts(run: Run, tokens: Tensor, actions: Tensor | None, pasts: Pasts) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, log p float64 (K,)) for every one of T frames but the first, given their tokens.

    The log-likelihood of the whole frame had each of K `pasts` come before it, and then the same action.
    """
    layout, length = run.layout, pasts.action_ids.shape[1] + 1
    action_ids, count = layout.action_ids(actions, len(tokens)), layout.context_tokens
    session = run.token_session(pasts.tokens[0, :length], None, len(pasts))
    ids = torch.stack([layout.pack(t[:length], a) for t, a in zip(pasts.tokens, pasts.action_ids, strict=True)])
    before = session.mark()
    before = replace(before, ids=ids.to(before.ids.device))
    contexts, own = pasts.tokens[:, -1].flatten(1)[:, :count], tokens.flatten(1)[:, count:].cpu()
    for frame in range(1, len(tokens)):
        session.rewind(before)
        row = torch.cat([contexts, own[frame].expand(len(pasts), -1)], 1)
        yield frame, -session.observe_tokens(row, action_ids[frame - 1 : frame]).nll.sum(1).cpu()
