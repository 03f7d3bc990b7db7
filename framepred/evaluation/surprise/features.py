"""How well a run predicted each real frame: negative log-likelihoods of its tokens, and the features made of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

from torch import Tensor

from framepred.world.counterfactual import Pasts, after_other_pasts
from framepred.world.likelihood import token_logits
from framepred.world.run import Run


class Features(NamedTuple):
    """What a frame is judged by, nats a token: see `FrameScores.features`."""

    peak_nll: float
    relative_nll: float
    excess_nll: float
    entropy: float


@dataclass(frozen=True)
class FrameScores:
    """How a frame's N tokens were predicted, each float32 (N,).

    `nll` is −log p of the token that came, `entropy` the expectation of that under the model, `confidence` the largest
    p of any token, `right` 1 where that was the token that came. `nll_other_pasts` is the mean of −log p given frames
    of other videos as the past, or None.
    """

    nll: Tensor
    entropy: Tensor
    confidence: Tensor
    right: Tensor
    nll_other_pasts: float | None = None

    @property
    def features(self) -> Features:
        """The frame's features, each a mean over tokens.

        `peak_nll` is over the sixteenth of the tokens with the highest −log p: a surprise can be small in the picture,
        and after its first tokens the model expects the rest of it. `excess_nll` is −log p less the entropy.
        `relative_nll` is −log p less the mean of the entropy and of −log p after other pasts: a frame that is hard to
        predict is no surprise; a frame that follows from its past no better than from another past is one.
        """
        top = self.nll.topk(max(1, len(self.nll) // 16)).values
        nll, entropy = float(self.nll.mean()), float(self.entropy.mean())
        expected = entropy if self.nll_other_pasts is None else (entropy + self.nll_other_pasts) / 2
        return Features(float(top.mean()), nll - expected, nll - entropy, entropy)


def score_frames(
    run: Run, tokens: Tensor, actions: Tensor | None, pasts: Pasts | None = None
) -> Iterator[tuple[int, FrameScores]]:
    """Yield (frame, scores) for every one of T frames but the first, given their tokens and the real past.

    `actions` (≥ T - 1) or None for none; `pasts` are stretches of other videos. What the model sees is what a rollout
    would show it.
    """
    unrelated = after_other_pasts(run, tokens, actions, pasts) if pasts else repeat((0, None))
    for (frame, logits), (_, other) in zip(token_logits(run, tokens, actions), unrelated, strict=False):
        wanted = run.layout.steps(tokens)[frame].to(logits.device)
        log_p = logits.log_softmax(-1)
        best, guess = log_p.max(-1)
        scores = FrameScores(
            nll=-log_p.gather(-1, wanted[:, None].long())[:, 0].cpu(),
            entropy=-(log_p.exp() * log_p).sum(-1).cpu(),
            confidence=best.exp().cpu(),
            right=(guess == wanted).float().cpu(),
            nll_other_pasts=None if other is None else float(-other.mean() / len(wanted)),
        )
        yield frame, scores
