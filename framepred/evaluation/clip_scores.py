"""One clip → every row's scores, frame by frame, as plain values: what is cached, and averaged later."""

import base64
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.evaluation.clips import EvalClip
from framepred.evaluation.futures import Futures, Scorer, action_variants, encode_variants, make_futures, own_row
from framepred.evaluation.metrics import motion
from framepred.evaluation.scores import score_pixels
from framepred.evaluation.spread import energy, rank_histogram
from framepred.world.likelihood import token_logits
from framepred.world.run import Run

Values = dict[str, list[float]]


@dataclass(frozen=True)
class ClipScores:
    """A clip's scores as strict JSON values: `rows` name → score → one value a frame.

    `own` names the row that is the model's own; `motion` is the mean change of the true frames. `retrieved` says what
    the nearest training clip is, `spread` holds the scores of samples as a distribution, `features` what FID and FVD
    are computed from (metric → row → packed).
    """

    name: str
    own: str
    rows: dict[str, Values]
    motion: float | None
    retrieved: dict[str, Any] | None
    spread: Values | None
    features: dict[str, dict[str, dict[str, Any]]]

    def row(self, name: str) -> Values | None:
        """Return a row's scores; "model" is the model's own row."""
        return self.rows.get(self.own if name == "model" else name)


def score_clip(scorer: Scorer, clip: EvalClip, others: Tensor | None) -> ClipScores:
    """Score one clip in every row that is possible; `others` are another clip's actions (C + T - 1), for shuffling.

    Raises FramepredError where the run does not understand the clip's actions.
    """
    run, protocol = scorer.run, scorer.protocol
    variants = action_variants(run, clip, others, protocol.context)
    for actions in variants.values():
        if actions is not None and run.layout.actions is not None:
            run.layout.actions.encode(actions, clip.name)
    tokens = encode_variants(run, clip, variants)
    own, rows, spread = own_row(variants), dict[str, Values](), None
    features, retrieved = dict[str, Any](), None
    if protocol.rollout:
        futures = make_futures(scorer, clip, variants, tokens)
        rows = {row: _pixel_scores(scorer, futures, row) for row in futures.frames}
        features, retrieved = _features(scorer, futures), futures.retrieved
        spread = _spread(futures.frames[own], futures.future) if protocol.samples > 1 else None
    for row, actions in variants.items():
        rows.setdefault(row, {}).update(_token_scores(run, tokens[row], actions, protocol.context))
    steps = run.layout.steps(tokens[own])
    unchanged = (steps[protocol.context :] == steps[protocol.context - 1 : -1]).double().mean(1)
    rows.setdefault("copy_last", {})["accuracy"] = unchanged.tolist()
    moved = None if clip.frames is None else motion(clip.frames[protocol.context - 1 :])
    return ClipScores(clip.name, own, rows, moved, retrieved, spread, features)


def _pixel_scores(scorer: Scorer, futures: Futures, row: str) -> Values:
    """Score a row's futures: one value a counted frame, by the protocol's statistic."""
    count, lpips = len(futures.context), scorer.perceptual.lpips
    true_context, last = futures.truth[:count], futures.truth[count - 1]
    scores = score_pixels(futures.frames[row], futures.future, futures.before[row], last, lpips)
    if scorer.protocol.counted == "all":
        # Every row is given the same context, as the tokenizer gives it back.
        given = score_pixels(futures.context[None], true_context, futures.context[0], true_context[0], lpips)
        scores = scores.after(given)
    best = scorer.protocol.statistic == "best"
    values = {name: value.tolist() for name, value in scores.over_samples(best).tensors().items()}
    return values | ({"repetition": _repetition(futures, row).tolist()} if row in futures.tokens else {})


def _repetition(futures: Futures, row: str) -> Tensor:
    """Return the share (T,) of a row's tokens that equal the token at the same place in the frame before."""
    tokens = futures.tokens[row]
    earlier = torch.cat([futures.past[row].expand(len(tokens), 1, -1), tokens[:, :-1]], 1)
    return (tokens == earlier).double().mean((0, 2))


def _token_scores(run: Run, tokens: Tensor, actions: Tensor | None, context: int) -> dict[str, list[float]]:
    """Score the true tokens of each future frame given the true past: cross-entropy in nats, accuracy, both (T,)."""
    entropy, right = [], []
    for frame, logits in token_logits(run, tokens, actions):
        if frame >= context:
            target = run.layout.steps(tokens)[frame].to(logits.device)
            entropy.append(float(F.cross_entropy(logits.double(), target)))
            right.append(float((logits.argmax(-1) == target).double().mean()))
    bits = [e * run.layout.frame_tokens / math.log(2) for e in entropy]
    return {"cross_entropy": entropy, "accuracy": right, "bits": bits}


def _spread(samples: Tensor, truth: Tensor) -> dict[str, list[float]]:
    score, error, spread = energy(samples, truth)
    return {
        "energy": score.tolist(),
        "error": error.tolist(),
        "spread": spread.tolist(),
        "ranks": rank_histogram(samples, truth).tolist(),
    }


def _features(scorer: Scorer, futures: Futures) -> dict[str, dict[str, Any]]:
    """Return the features of FID and FVD, for the truth and each row, where there are weights."""
    result: dict[str, dict[str, Any]] = {}
    if (fid := scorer.perceptual.fid) is not None:
        result["fid"] = {"truth": pack(fid(futures.future))}
        result["fid"] |= {row: pack(fid(frames[0])) for row, frames in futures.frames.items()}
    if (fvd := scorer.perceptual.fvd) is not None:
        counts_all = scorer.protocol.counted == "all"
        given = futures.context if counts_all else futures.context[:0]
        result["fvd"] = {"truth": pack(fvd(futures.truth if counts_all else futures.future))}
        for row, frames in futures.frames.items():
            result["fvd"][row] = pack(torch.cat([fvd(torch.cat([given, sample])) for sample in frames]))
    return result


def pack(features: Tensor) -> dict[str, Any]:
    """Features float32 (n, D) → JSON values without loss."""
    rows = features.contiguous().numpy()
    return {"shape": list(rows.shape), "float32": base64.b64encode(rows.tobytes()).decode()}
