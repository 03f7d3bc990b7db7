"""Context → future, frame by frame: a generator."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from framepred.decoding.engine import Engine
from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.tokenizer.contract import actions_before, last_pictures
from framepred.video.read import Clip
from framepred.video.resize import fit_frames
from framepred.world.run import Run

MAX_HORIZON = 100_000
MAX_SAMPLES = 4096


@dataclass(frozen=True)
class Prediction:
    """One predicted moment of S futures: frames uint8 (S, 3, H, W), tokens int64 (S, h, w) or (S, K + N).

    `index` counts frames from the clip's first; `passes` is what the model has run so far.
    """

    index: int
    frames: Tensor
    tokens: Tensor
    passes: int


def predict(
    run: Run,
    tokens: Tensor,
    actions: Tensor | None,
    horizon: int,
    samples: int = 1,
    sampling: Sampling | None = None,
    decoder: str = "auto",
    prompt: Tensor | None = None,
    engine: Engine | None = None,
    first: Tensor | None = None,
) -> Iterator[Prediction]:
    """Predict `horizon` frames after the tokens of T context frames, yielding each as it is made.

    What a frame is given is the frame before it as it was yielded; a window that has slid begins with the
    context of that. So a rollout that goes on from the tokens of another is one with it.

    `actions` (≥ T + horizon - 1) or None for none; `prompt` (P,) are the ids of words before the frames
    (`text.prompt_ids`), which stay before the window when it moves; `engine` draws the tokens, framepred's own where
    it is None; `first` uint8 (3, H, W) is the first picture, for tokenizers that need it, or (T, 3, H, W) all
    pictures: the next frame is then drawn from the true ones. Raises FramepredError for what is not allowed.
    """
    check_lengths(len(tokens), horizon, samples)
    taken = None if run.layout.actions is None else actions
    session = run.session_after(tokens, taken, samples, sampling, prompt, decoder, engine, first)
    for frame in range(len(tokens), len(tokens) + horizon):
        given = taken is not None and frame <= len(taken)
        shown = session.step(taken[frame - 1 : frame] if taken is not None and given else None)
        yield Prediction(frame, shown.cpu(), session.tokens.cpu(), session.passes)


@torch.inference_mode()
def ensemble_mean(
    run: Run,
    context: Tensor,
    futures: Iterator[Prediction],
    actions: Tensor | None = None,
    first: Tensor | None = None,
) -> Iterator[Prediction]:
    """Follow S futures of a context's tokens; yield each moment's mean picture as one future, by its tokens.

    In squared error nothing is nearer to what may come: what the futures agree on stays sharp, what they do not
    is blurred. Each goes on from its own past, never from the mean. `actions` (≥ T + horizon - 1) or None for none;
    `first` as in `predict`.
    """
    tokenizer = run.tokenizer
    pictures = last_pictures(tokenizer, context.to(run.predictor.embed.weight.device), actions, first)
    for moment in futures:
        given = actions_before(tokenizer, actions, moment.index)
        own = tokenizer.encode_next(pictures, given, mean_frames(moment.frames).to(pictures.device))
        row = torch.cat([tokenizer.encode_context(pictures, given), own.flatten(1)], 1)
        shown = tokenizer.decode_next(pictures, given, own)
        pictures = torch.cat([pictures, shown[:, None]], 1)[:, 1:] if tokenizer.past else pictures
        yield replace(moment, frames=shown.cpu(), tokens=run.layout.rows(row).cpu())


def mean_frames(frames: Tensor) -> Tensor:
    """Samples uint8 (S, …) → the one that is their mean, uint8 (1, …)."""
    return frames.float().mean(0, keepdim=True).round().byte()


def ensemble_size(samples: int | None, ensemble: int | None) -> int:
    """Return of how many futures the one that is shown is the mean; 1 where `ensemble` is None.

    Raises FramepredError for what is not allowed.
    """
    if ensemble is None:
        return 1
    check_count("ensemble", ensemble, MAX_SAMPLES)
    if ensemble > 1 and samples is not None:
        raise FramepredError(f"samples {samples} are shown one by one, ensemble {ensemble} as their mean: give one")
    return ensemble


def check_lengths(context: int, horizon: int, samples: int) -> None:
    """Raise FramepredError unless context, horizon and samples are sensible numbers."""
    check_count("context", context, MAX_HORIZON)
    check_count("horizon", horizon, MAX_HORIZON)
    check_count("samples", samples, MAX_SAMPLES)


def check_count(name: str, value: int, most: int) -> None:
    """Raise FramepredError unless a number is from 1 to `most`."""
    if not 1 <= value <= most:
        raise FramepredError(f"{name} {value} is not allowed: give a whole number from 1 to {most}")


def check_actions(run: Run, actions: Tensor | None, needed: int, where: str = "actions") -> None:
    """Raise FramepredError unless there is an action for each of the `needed` steps that the run understands."""
    if actions is None:
        return
    if run.layout.actions is None:
        raise FramepredError(f"{where}: the model {run.path} was trained without actions; give --actions none")
    if len(actions) < needed:
        raise FramepredError(
            f"{where}: {len(actions)} rows, {needed} are needed (context + horizon - 1); "
            "give more rows or a shorter --horizon"
        )
    run.layout.actions.encode(actions, where)


def rollout(
    run: Run,
    clip: Clip,
    actions: Tensor | None = None,
    context: int = 4,
    horizon: int = 16,
    seed: int = 0,
    samples: int | None = None,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    decoder: str = "auto",
    ensemble: int | None = None,
) -> Iterator[Tensor]:
    """Predict the frames after a clip's first `context`, yielding each as uint8 (3, H, W).

    With `samples` a number S, each is (S, 3, H, W): S futures. `actions[t]` leads from frame t to
    frame t+1, int64 (T,) or float32 (T, D), at least context + horizon - 1; None predicts without. The
    `temperature` is the run's own where it is None. With `ensemble` a number K, each is the mean of K futures.
    """
    members = ensemble_size(samples, ensemble)
    count = members if samples is None else samples
    check_lengths(context, horizon, count)
    if len(clip.frames) < context:
        raise FramepredError(
            f"the clip has {len(clip.frames)} frames, fewer than the context of {context}; give a smaller context"
        )
    check_actions(run, actions, context + horizon - 1)
    frames = fit_frames(clip.frames[:context], run.tokenizer.frame_size)
    tokens, sampling = run.tokenizer.encode(frames, actions), run.sampling(temperature, top_k, top_p, seed)
    futures = predict(run, tokens, actions, horizon, count, sampling, decoder, first=frames)
    for made in ensemble_mean(run, tokens, futures, actions, frames) if members > 1 else futures:
        yield made.frames if samples is not None else made.frames[0]
