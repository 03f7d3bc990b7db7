"""Teacher forcing: what the model expects of each real frame, given the real frames before it."""

from collections.abc import Iterator

from torch import Tensor

from framepred.world.run import Run


def token_logits(run: Run, tokens: Tensor, actions: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Yield (frame, logits float32 (N, V)) for every one of T frames but the first, given their tokens.

    Row n scores each visual token at place n of the frame's grid, in raster order, given the real past:
    the frames and actions of the window that a rollout would see, and the places that the layout's scan has
    before n. `actions` (≥ T - 1) or None for none.
    """
    action_ids = run.layout.action_ids(actions, len(tokens))
    session = run.token_session(tokens[:1], None)
    for seen in session.observe_clip(tokens.flatten(1)[1:], action_ids[: len(tokens) - 1]):
        yield seen.frame, seen.logits[0].float()
