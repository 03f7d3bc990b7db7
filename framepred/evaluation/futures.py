"""One clip → its future in every row: the model with and without actions, the baselines, the tokenizer's ceiling."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.evaluation.clips import EvalClip
from framepred.evaluation.metrics import copy_last, extrapolate
from framepred.evaluation.perceptual import Perceptual
from framepred.evaluation.protocol import RUNS_OWN, Protocol
from framepred.evaluation.retrieval import TrainingIndex
from framepred.tokenizer.contract import actions_before, last_pictures
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.video.resize import fit_frames
from framepred.world.rollout import mean_frames, predict
from framepred.world.run import Run

BASELINES = ("copy_last", "linear", "nearest_training", "decoder_alone")
ROWS = (
    "model", "model_mean", "model_true_actions", "model_no_actions", "model_shuffled_actions", *BASELINES, "ceiling",
)  # fmt: skip


@dataclass(frozen=True)
class Scorer:
    """What clips are scored with: a run, a protocol, the training index if any, and the perceptual metrics."""

    run: Run
    protocol: Protocol
    index: TrainingIndex | None
    perceptual: Perceptual


@dataclass(frozen=True)
class Futures:
    """A clip's true frames uint8 (C + T, 3, H, W), and each row's future: frames (S, T, 3, H, W), where it has
    them tokens (S, T, N) and those of the frame before, `past` (N,), and the frame before its first.

    `context` is as the tokenizer gives it back in the model's own row.
    """

    truth: Tensor
    context: Tensor
    past: dict[str, Tensor]
    frames: dict[str, Tensor]
    before: dict[str, Tensor]
    tokens: dict[str, Tensor]
    retrieved: dict[str, Any] | None

    @property
    def future(self) -> Tensor:
        return self.truth[len(self.context) :]


def action_variants(run: Run, clip: EvalClip, others: Tensor | None, context: int) -> dict[str, Tensor | None]:
    """Return the actions of each model row that is possible for this clip.

    Shuffled actions are the true ones up to the last context frame, then those of another clip. Stored tokens that say
    what their actions do not are of the true actions alone.
    """
    variants: dict[str, Tensor | None] = {"model_no_actions": None}
    if run.layout.actions is None or clip.actions is None:
        return variants
    if clip.tokens is not None and run.tokenizer.past_actions:
        return {"model_true_actions": clip.actions}
    variants["model_true_actions"] = clip.actions
    if others is not None:
        variants["model_shuffled_actions"] = torch.cat([clip.actions[: context - 1], others[context - 1 :]])
    return variants


def sampling_of(run: Run, protocol: Protocol) -> Sampling:
    """Return how futures are drawn: by the protocol, at the run's own temperature where that says none."""
    temperature = None if protocol.temperature == RUNS_OWN else protocol.temperature
    return run.sampling(temperature, protocol.top_k, protocol.top_p, protocol.seed)


def own_row(variants: dict[str, Tensor | None]) -> str:
    """Return the row that is the model's own: with true actions where there are any."""
    return "model_true_actions" if "model_true_actions" in variants else "model_no_actions"


def encode_variants(run: Run, clip: EvalClip, variants: dict[str, Tensor | None]) -> dict[str, Tensor]:
    """Return the tokens of a clip's frames as they are coded given the actions of each row."""
    if clip.tokens is not None:
        return dict.fromkeys(variants, clip.tokens.long())
    assert clip.frames is not None
    frames = fit_frames(clip.frames, run.tokenizer.frame_size)
    if not run.tokenizer.past_actions:
        return dict.fromkeys(variants, run.tokenizer.encode(frames).cpu())
    return {row: run.tokenizer.encode(frames, actions).cpu() for row, actions in variants.items()}


def decode_alone(
    tokenizer: TemporalAutoencoder, tokens: Tensor, actions: Tensor | None, horizon: int, first: Tensor
) -> Tensor:
    """Go on from the tokens of C frames by a tokenizer alone, no token saying anything: uint8 (T, 3, H, W).

    `first` as in `last_pictures`.
    """
    pictures, made = last_pictures(tokenizer, tokens.to(tokenizer.device), actions, first), []
    nothing = torch.full((1, *tokenizer.grid), tokenizer.null_code, device=tokenizer.device)
    for frame in range(len(tokens), len(tokens) + horizon):
        shown = tokenizer.decode_next(pictures, actions_before(tokenizer, actions, frame), nothing)
        pictures = torch.cat([pictures, shown[:, None]], 1)[:, 1:]
        made.append(shown.cpu())
    return torch.cat(made)


def make_futures(
    scorer: Scorer, clip: EvalClip, variants: dict[str, Tensor | None], tokens: dict[str, Tensor]
) -> Futures:
    """Predict and copy a clip's future in every row; tokens are those of its C + T frames in each model row."""
    run, protocol, steps, own = scorer.run, scorer.protocol, scorer.run.layout.steps, own_row(variants)
    assert clip.frames is not None
    truth, count = clip.frames, protocol.context
    size, context = (truth.shape[-2], truth.shape[-1]), fit_frames(truth[:count], run.tokenizer.frame_size)
    decoded = fit_frames(run.tokenizer.decode(tokens[own], variants[own], context[0]).cpu(), size)
    frames = {
        "copy_last": copy_last(truth[:count], protocol.horizon)[None],
        "linear": extrapolate(truth[:count], protocol.horizon)[None],
        "ceiling": decoded[None, count:],
    }
    before = dict.fromkeys(("copy_last", "linear"), truth[count - 1])
    made = {"ceiling": steps(tokens[own][count:])[None].cpu()}
    retrieved = None
    if scorer.index is not None:
        episode, start, distance = scorer.index.nearest(context, protocol.horizon)
        replayed = scorer.index.frames(episode, start + count - 1, protocol.horizon + 1, size)
        before["nearest_training"], frames["nearest_training"] = replayed[0], replayed[None, 1:]
        retrieved = {"episode": scorer.index.episodes[episode].name, "frame": start, "distance": distance}
    if isinstance(run.tokenizer, TemporalAutoencoder):
        alone = decode_alone(run.tokenizer, tokens[own][:count], variants[own], protocol.horizon, context)
        frames["decoder_alone"], before["decoder_alone"] = fit_frames(alone, size)[None], truth[count - 1]
    sampling = sampling_of(run, protocol)
    for row, actions in variants.items():
        given = tokens[row][:count]
        moments = list(predict(run, given, actions, protocol.horizon, protocol.samples, sampling, first=context))
        if run.tokenizer.past:
            before[row] = truth[count - 1]
        future = torch.stack([moment.frames for moment in moments], 1)
        frames[row] = fit_frames(future.flatten(0, 1), size).view(*future.shape[:2], 3, *size)
        made[row] = torch.stack([steps(moment.tokens) for moment in moments], 1)
    if protocol.samples > 1:
        frames["model_mean"] = mean_frames(frames[own])
    before = dict.fromkeys(frames, decoded[count - 1]) | before
    past = {row: steps(tokens[row if row in tokens else own][:count])[-1].cpu() for row in made}
    return Futures(truth, decoded[:count], past, frames, before, made, retrieved)
