"""One clip → every row's raw numbers, frame by frame, as strict JSON values: what is cached, and averaged later."""

import base64
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.evaluation.clips import EvalClip
from framepred.evaluation.metrics import copy_last, extrapolate, frozen, motion, moving, mse, psnr_of, ssim
from framepred.evaluation.perceptual import Perceptual
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.retrieval import TrainingIndex
from framepred.evaluation.spread import energy, rank_histogram
from framepred.video.resize import fit_frames
from framepred.world.likelihood import token_logits
from framepred.world.rollout import mean_frames, predict
from framepred.world.run import Run

BASELINES = ("copy_last", "linear", "nearest_training")
ROWS = (
    "model", "model_mean", "model_true_actions", "model_no_actions", "model_shuffled_actions", *BASELINES, "ceiling",
)  # fmt: skip


@dataclass(frozen=True)
class Scorer:
    """What clips are scored with: a run, a protocol, the training index and the weights that there are."""

    run: Run
    protocol: Protocol
    index: TrainingIndex | None
    perceptual: Perceptual


@dataclass(frozen=True)
class Futures:
    """A clip's true frames uint8 (C + T, 3, H, W), and each row's future: frames (S, T, 3, H, W), where it has
    them tokens (S, T, N), and the frame before its first, which `frozen` asks for.

    `context` is as the tokenizer gives it back, `past` the tokens of its last frame.
    """

    truth: Tensor
    context: Tensor
    past: Tensor
    frames: dict[str, Tensor]
    before: dict[str, Tensor]
    tokens: dict[str, Tensor]
    retrieved: dict[str, Any] | None

    @property
    def future(self) -> Tensor:
        return self.truth[len(self.context) :]


def action_variants(run: Run, clip: EvalClip, others: Tensor | None, context: int) -> dict[str, Tensor | None]:
    """Return the actions of each model row that this clip allows; the model's own are the true ones if there are any.

    Shuffled are the true ones up to the last context frame, then those of another clip.
    """
    variants: dict[str, Tensor | None] = {"model_no_actions": None}
    if run.layout.actions is None or clip.actions is None:
        return variants
    variants["model_true_actions"] = clip.actions
    if others is not None:
        variants["model_shuffled_actions"] = torch.cat([clip.actions[: context - 1], others[context - 1 :]])
    return variants


def own_row(variants: dict[str, Tensor | None]) -> str:
    """Return the row that is the model's own: with true actions where there are any."""
    return "model_true_actions" if "model_true_actions" in variants else "model_no_actions"


def make_futures(scorer: Scorer, clip: EvalClip, variants: dict[str, Tensor | None], tokens: Tensor) -> Futures:
    """Predict and copy a clip's future in every row: tokens are those of its C + T frames."""
    run, protocol, steps = scorer.run, scorer.protocol, scorer.run.layout.steps
    assert clip.frames is not None
    truth, count = clip.frames, protocol.context
    size = (truth.shape[-2], truth.shape[-1])
    decoded = fit_frames(run.tokenizer.decode(tokens).cpu(), size)
    frames = {
        "copy_last": copy_last(truth[:count], protocol.horizon)[None],
        "linear": extrapolate(truth[:count], protocol.horizon)[None],
        "ceiling": decoded[None, count:],
    }
    before = dict.fromkeys(("copy_last", "linear"), truth[count - 1])
    made = {"ceiling": steps(tokens[count:])[None].cpu()}
    retrieved = None
    if scorer.index is not None:
        seen = fit_frames(truth[:count], run.tokenizer.frame_size)
        episode, start, distance = scorer.index.nearest(seen, protocol.horizon)
        replayed = scorer.index.frames(episode, start + count - 1, protocol.horizon + 1, size)
        before["nearest_training"], frames["nearest_training"] = replayed[0], replayed[None, 1:]
        retrieved = {"episode": scorer.index.episodes[episode].name, "frame": start, "distance": distance}
    sampling = Sampling(protocol.temperature, protocol.top_k, protocol.top_p, protocol.seed)
    for row, actions in variants.items():
        moments = list(predict(run, tokens[:count], actions, protocol.horizon, protocol.samples, sampling))
        future = torch.stack([moment.frames for moment in moments], 1)
        frames[row] = fit_frames(future.flatten(0, 1), size).view(*future.shape[:2], 3, *size)
        made[row] = torch.stack([steps(moment.tokens) for moment in moments], 1)
    if protocol.samples > 1:
        frames["model_mean"] = mean_frames(frames[own_row(variants)])
    before = dict.fromkeys(frames, decoded[count - 1]) | before
    past = steps(tokens[:count])[-1].cpu()
    return Futures(truth, decoded[:count], past, frames, before, made, retrieved)


def score_clip(scorer: Scorer, clip: EvalClip, others: Tensor | None) -> dict[str, Any]:
    """Score one clip in every row that it allows; `others` are another clip's actions (C + T - 1), for shuffling.

    Raises FramepredError where the run does not understand the clip's actions.
    """
    run, protocol = scorer.run, scorer.protocol
    variants = action_variants(run, clip, others, protocol.context)
    for actions in variants.values():
        if actions is not None and run.layout.actions is not None:
            run.layout.actions.encode(actions, clip.name)
    if clip.tokens is not None:
        tokens = clip.tokens.long()
    else:
        assert clip.frames is not None
        tokens = run.tokenizer.encode(fit_frames(clip.frames, run.tokenizer.frame_size)).cpu()
    record: dict[str, Any] = {"name": clip.name, "own": own_row(variants), "rows": {}}
    if clip.frames is not None:
        record["motion"] = motion(clip.frames[protocol.context - 1 :])
    if protocol.rollout:
        futures = make_futures(scorer, clip, variants, tokens)
        for row in futures.frames:
            record["rows"][row] = _frame_scores(scorer, futures, row)
        record |= _features(scorer, futures) | {"retrieved": futures.retrieved}
        if protocol.samples > 1:
            record["spread"] = _spread(futures.frames[record["own"]], futures.future)
    for row, actions in variants.items():
        record["rows"].setdefault(row, {}).update(_token_scores(run, tokens, actions, protocol.context))
    steps = run.layout.steps(tokens)
    unchanged = (steps[protocol.context :] == steps[protocol.context - 1 : -1]).double().mean(1)
    record["rows"].setdefault("copy_last", {})["accuracy"] = unchanged.tolist()
    return record


def _frame_scores(scorer: Scorer, futures: Futures, row: str) -> dict[str, list[float]]:
    """Score a row's S futures against the truth: one value a counted frame, by the protocol's statistic."""
    protocol, predicted, truth = scorer.protocol, futures.frames[row], futures.future
    count = len(futures.context)
    error = mse(predicted, truth)
    values = {"mse": error, "psnr": psnr_of(error), "ssim": torch.stack([ssim(s, truth) for s in predicted])}
    if scorer.perceptual.lpips is not None:
        values["lpips"] = torch.stack([scorer.perceptual.lpips(s, truth) for s in predicted])
    if protocol.counted == "all":
        # Every row is given the same context, as the tokenizer gives it back.
        given, true = futures.context, futures.truth[:count]
        start = {"mse": mse(given, true), "psnr": psnr_of(mse(given, true)), "ssim": ssim(given, true)}
        if scorer.perceptual.lpips is not None:
            start["lpips"] = scorer.perceptual.lpips(given, true)
        values = {k: torch.cat([start[k].expand(len(v), -1), v], 1) for k, v in values.items()}
    moved, weight = moving(predicted, truth, futures.truth[count - 1])
    stuck = frozen(predicted, futures.before[row]).mean(0)
    best = protocol.statistic == "best"
    scores = {
        k: _statistic(v, best, higher=k in ("psnr", "ssim")) for k, v in values.items()
    } | {"moved": _statistic(moved, best, higher=False), "weight": weight, "frozen": stuck}  # fmt: skip
    if row in futures.tokens:
        scores["repetition"] = _repetition(futures, row)
    return {k: v.tolist() for k, v in scores.items()}


def _statistic(values: Tensor, best: bool, higher: bool) -> Tensor:
    """Samples' values (S, T) → (T,): their mean, or the sample that is best on the average over the frames."""
    if not best:
        return values.mean(0)
    means = values.mean(1)
    return values[int(means.argmax() if higher else means.argmin())]


def _repetition(futures: Futures, row: str) -> Tensor:
    """Return the share (T,) of a row's tokens that repeat those at their place in its frame before."""
    tokens = futures.tokens[row]
    earlier = torch.cat([futures.past.expand(len(tokens), 1, -1), tokens[:, :-1]], 1)
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
    """Return what FID and FVD are computed from, for the truth and each row, where there are weights."""
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
    """Features float32 (n, D) → JSON values, exactly."""
    rows = features.contiguous().numpy()
    return {"shape": list(rows.shape), "float32": base64.b64encode(rows.tobytes()).decode()}
