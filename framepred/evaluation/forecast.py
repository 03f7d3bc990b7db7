"""A video file and a run → predicted frames, with their actions, truth and scores, and the output file."""

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.config.recipe import check_sampling
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import predict_by
from framepred.errors import FramepredError, FramepredWarning
from framepred.evaluation.metrics import psnr
from framepred.evaluation.scores import WITHOUT_WEIGHTS, ForecastScores, score_forecast
from framepred.io.atomic import writing
from framepred.llm.text import prompt_ids
from framepred.sources.find import find_episode
from framepred.video.panels import draw_panels
from framepred.video.write import write_video
from framepred.world.device import choose_device
from framepred.world.footage import given_actions, rate_of_run
from framepred.world.rollout import Prediction, check_actions, check_lengths, ensemble_mean, ensemble_size, predict
from framepred.world.run import Run, load_run

_MAX_BYTES = 4 << 30
_Watch = Callable[[Iterator[Prediction]], Iterator[Prediction]]


@dataclass(frozen=True)
class Forecast:
    """Predicted frames uint8 (S, T, 3, H, W) after `context`, their tokens, and the truth as far as it goes.

    Where they are the mean of an `ensemble`, `member` (T, 3, H, W) is its first future.
    """

    run: Run
    context: Tensor
    context_tokens: Tensor
    truth: Tensor
    actions: Tensor | None
    frames: Tensor
    tokens: Tensor
    fps: float
    sampling: Sampling
    engine: str
    decoder: str | None
    passes: int
    seconds: float
    scores: ForecastScores | None
    prompt: str | None = None
    ensemble: int = 1
    member: Tensor | None = None

    def summary(self) -> dict[str, Any]:
        """Return the facts and scores as strict JSON values."""
        samples, horizon = self.frames.shape[:2]
        tokens = samples * self.ensemble * horizon * self.run.layout.frame_tokens
        facts: dict[str, Any] = {
            "model": str(self.run.path),
            "context": len(self.context),
            "horizon": horizon,
            "samples": samples,
            "ensemble": self.ensemble,
            "seed": self.sampling.seed,
            "temperature": self.sampling.temperature,
            "top_k": self.sampling.top_k,
            "top_p": self.sampling.top_p,
            "prompt": self.prompt,
            "engine": self.engine,
            "decoder": self.decoder,
            "actions": self.actions is not None,
            "seconds": self.seconds,
            "tokens_per_second": tokens / max(self.seconds, 1e-9),
            "forward_passes": self.passes,
        }
        if self.scores is None:
            empty: dict[str, list[float]] = {"model": [], "copy_last": [], "ceiling": []}
            return (
                facts
                | dict.fromkeys(("mse", *WITHOUT_WEIGHTS), empty)
                | {"motion": None, "mean": None, "over_copying": None}
            )
        scored = self.scores.to_json()
        return facts | scored | {"over_copying": _gain(scored["mean"])}

    def sequence(self) -> Tensor:
        """Return ids int64 (L,): the flat sequence of sample 0 as the model saw it, context included."""
        layout = self.run.layout
        tokens = torch.cat([self.context_tokens, self.tokens[0]])
        frames = layout.pack(tokens, layout.action_ids(self.actions, len(tokens) - 1))
        return frames if self.prompt is None else torch.cat([prompt_ids(self.run, self.prompt), frames])


def make_forecast(
    video: str | Path,
    model: str = "doom-64",
    context: int = 4,
    horizon: int = 16,
    start: int = 0,
    actions: str | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
    decoder: str = "auto",
    engine: str = "framepred",
    server: str | None = None,
    prompt: str | None = None,
    ensemble: int | None = None,
    device: str = "auto",
    watch: _Watch = iter,
) -> Forecast:
    """Predict how a video file goes on after `context` frames from `start`, and score it where it does.

    `actions` is a CSV file, "none", or None for the file beside the video. A video whose rate is not
    the run's is resampled to it, unless an actions file belongs to its frames. `engine` is "framepred"
    or one of engines.ENGINES; `server` is the address of a vLLM server. `prompt` are words before the frames.
    `samples` futures are shown, one where it is None, or the mean of `ensemble` futures. The `temperature` is the run's
    own where it is None.
    """
    check_lengths(context, horizon, 1 if samples is None else samples)
    check_sampling(temperature or 0, top_k, top_p, seed)
    run = load_run(model, choose_device(device))
    sampling = run.sampling(temperature, top_k, top_p, seed)
    members = ensemble_size(samples, ensemble)
    count = members if samples is None else samples
    _check_engine(engine, decoder, server, sampling.greedy)
    _check_memory(count, horizon, run.tokenizer.frame_size)
    words = None if prompt is None else prompt_ids(run, prompt)
    frames, fps, taken = _read(Path(video), run, actions, start, context, horizon)
    known = None if taken is None else taken[: context - 1]
    tokens = run.tokenizer.encode(frames[:context], known).cpu()

    began = time.perf_counter()
    if engine == "framepred":
        steps = predict(run, tokens, taken, horizon, count, sampling, decoder, words, first=frames[:context])
    else:
        steps = predict_by(engine, run, tokens, taken, horizon, count, sampling, server, words, frames[:context])
    first: list[Tensor] = []
    if members > 1:
        steps = ensemble_mean(run, tokens, _noting_first(steps, first), taken, frames[:context])
    made = list(watch(steps))
    seconds = time.perf_counter() - began
    predicted, truth = torch.stack([p.frames for p in made], 1), frames[context:]
    compared = predicted[:, : len(truth)]
    scores = score_forecast(compared, truth, frames[:context], run.tokenizer, taken) if len(truth) else None
    return Forecast(
        run, frames[:context], tokens, truth, taken, predicted, torch.stack([p.tokens for p in made], 1),
        fps, sampling, engine, _decoder(engine, decoder), made[-1].passes, seconds, scores, prompt, members,
        torch.stack(first) if first else None,
    )  # fmt: skip


def _gain(mean: dict[str, Any]) -> float:
    """By how many decibels the prediction is nearer to the truth than the last frame shown again."""
    return round(mean["model"]["psnr"] - mean["copy_last"]["psnr"], 6)


def _read(
    video: Path, run: Run, actions: str | None, start: int, context: int, horizon: int
) -> tuple[Tensor, float, Tensor | None]:
    """Return context + horizon frames of a video from `start` on, or fewer, their rate and the actions between."""
    file = find_episode(video, actions)
    given = given_actions(file, actions, run)
    rate = rate_of_run(file, run, given is not None)
    clip = file.read(run.tokenizer.frame_size, rate, start + context + horizon, with_actions=False)
    frames = clip.frames[start:]
    if len(frames) < context:
        raise FramepredError(
            f"{video} has {len(clip.frames)} frames ({clip.fps:g} a second), fewer than the context of {context}"
            + (f" from frame {start}" if start else "")
            + "; give a longer video or a smaller --context"
        )
    if given is None:
        return frames, clip.fps, None
    taken = given[0][start : start + context + horizon - 1]
    check_actions(run, taken, context + horizon - 1, given[1])
    return frames, clip.fps, taken


def _check_memory(samples: int, horizon: int, size: tuple[int, int]) -> None:
    if samples * horizon * 3 * size[0] * size[1] > _MAX_BYTES:
        raise FramepredError(
            f"{samples} futures of {horizon} frames take over {_MAX_BYTES >> 30} GiB: "
            "give a smaller --samples, --ensemble or --horizon"
        )


def _noting_first(steps: Iterator[Prediction], first: list[Tensor]) -> Iterator[Prediction]:
    for made in steps:
        first.append(made.frames[0])
        yield made


def _check_engine(engine: str, decoder: str, server: str | None, greedy: bool) -> None:
    if server is not None and engine != "vllm":
        raise FramepredError(f"server {server} is for the engine vllm, not {engine}: give --engine vllm")
    if engine == "framepred":
        return
    if decoder != "auto":
        raise FramepredError(f"decoder {decoder!r} is framepred's own; the engine {engine} has its own: leave it out")
    if not greedy:
        warnings.warn(
            FramepredWarning(
                f"{engine} draws by its own random numbers: a seed gives other frames than framepred's, "
                "the same only at temperature 0 or top-k 1"
            ),
            stacklevel=3,
        )


def _decoder(engine: str, decoder: str) -> str | None:
    if engine != "framepred":
        return None
    return "speculative" if decoder == "auto" else decoder


def write_forecast(forecast: Forecast, out: Path) -> None:
    """Write a forecast by file ending: panels to .mp4, .mkv, .gif or .webp; arrays to .npz."""
    if out.suffix.lower() == ".npz":
        _write_arrays(forecast, out)
        return
    truth, shown = forecast.truth, {"prediction": forecast.frames[0]}
    if forecast.member is not None:
        shown = {f"mean of {forecast.ensemble} futures": forecast.frames[0], "one of them": forecast.member}
    elif len(forecast.frames) > 1:
        shown = {f"prediction {s + 1}": sample for s, sample in enumerate(forecast.frames)}
    values = {title: psnr(frames[: len(truth)], truth).tolist() for title, frames in shown.items()}
    ceiling = forecast.scores.decoded if forecast.scores else None
    write_video(out, draw_panels(forecast.context, shown, truth, values, ceiling), forecast.fps)


def _write_arrays(forecast: Forecast, out: Path) -> None:
    actions, layout = forecast.actions, forecast.run.layout
    grids = torch.stack([layout.steps(sample).unflatten(1, layout.grid) for sample in forecast.tokens])
    with writing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            frames=forecast.frames.numpy(),
            tokens=grids.numpy(),
            ids=forecast.sequence().numpy(),
            actions=np.empty(0, np.int64) if actions is None else actions.numpy(),
        )
