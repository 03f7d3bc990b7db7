"""After training: is the run better than copying on what it did not see, and what would help most?"""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.evaluation.metrics import psnr_of
from framepred.evaluation.scores import PixelScores, score_forecast
from framepred.io.atomic import write_text
from framepred.io.files import read_json
from framepred.io.progress import Progress
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.tokens.store import is_store
from framepred.training.held_out import HeldOut
from framepred.training.start import Start
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

TEMPERATURES = (0.0, 0.5, 0.8, 1.0)
CONTEXT, HORIZON, CLIPS = 4, 8, 6
"""Frames that are given and predicted, and how many clips are predicted at most."""
_FILE = "verdict.json"
_READ = 600
"""Frames of a held-out episode that clips are taken from."""
_NEAR = 0.3
"""Decibels below the best temperature up to which the motion decides."""

Fit = Literal["over", "under", "well", "unknown"]


@dataclass(frozen=True)
class Trial:
    """One future of each clip at a temperature: pooled PSNR in dB, and means of sharpness and motion ratio."""

    temperature: float
    psnr: float
    sharpness: float
    motion_ratio: float
    worse_clips: int


@dataclass(frozen=True)
class Verdict:
    """How a run does on `clips` of what it was not trained on, `horizon` frames ahead, at the `temperature` it chose.

    PSNR in dB is that of one future, pooled over the clips; `ceiling` is what the tokenizer gives back at best. On
    `worse_clips` of the clips copying is nearer. `fit` says whether the predictor was trained too long ("over"), not
    long enough ("under"), or neither; `advice` what would help most.
    """

    clips: int
    horizon: int
    temperature: float
    model: float
    copying: float
    ceiling: float
    worse_clips: int
    trials: tuple[Trial, ...]
    fit: Fit
    advice: tuple[str, ...]

    @property
    def over_copying(self) -> float:
        """By how many dB one future is nearer to the truth than the last frame shown again."""
        return self.model - self.copying

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values."""
        return json.loads(json.dumps(asdict(self) | {"over_copying": self.over_copying}, allow_nan=False))


def judge(folder: Path, sources: Sequence[str], start: Start, seconds: float | None) -> Iterator[Progress | Verdict]:
    """Predict clips of what a run in `folder` did not see, yielding progress and at last the verdict, if there is one.

    The run keeps the verdict and the temperature that it chose. Clips are predicted for about so many `seconds`, one
    at least. No verdict is there where nothing was held out, or its pictures are not at hand.
    """
    began, run = time.monotonic(), load_run(folder, start.device)
    clips = list(_clips(run, sources, start.held_out))
    done: list[dict[float, dict[str, PixelScores]]] = []
    for i, (frames, actions) in enumerate(clips):
        if i and seconds is not None and time.monotonic() - began > seconds:
            break
        done.append({t: _scores(run, frames, actions, t) for t in TEMPERATURES})
        yield Progress(i + 1, len(clips), "is it predicting?")
    if not done:
        return
    verdict = _verdict(done, start, _fit(folder))
    write_text(folder / _FILE, json.dumps(verdict.to_json(), indent=1) + "\n")
    about = read_json(folder / "framepred.json", "run") | {"temperature": verdict.temperature, "ensemble": 1}
    write_text(folder / "framepred.json", json.dumps(about, indent=1) + "\n")
    yield verdict


def _clips(run: Run, sources: Sequence[str], held_out: Sequence[HeldOut]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield frames (context + horizon, 3, H, W) and the actions between them, of the held-out episodes in turn."""
    known = held_out_episodes(sources, held_out)[:CLIPS]
    each = -(-CLIPS // max(1, len(known)))
    for episode, first in known:
        yield from _cut(run, episode, first, each)


def held_out_episodes(sources: Sequence[str], held_out: Sequence[HeldOut]) -> list[tuple[StoredEpisode, int]]:
    """Return the held-out episodes whose pictures are at hand, each with the first frame that is held out."""
    keys = [h.key for h in held_out]
    try:
        found = {e.key: e for e in find_episodes(keys if any(map(is_store, sources)) else sources)} if keys else {}
    except FramepredError:
        return []
    return [(found[h.key], h.first) for h in held_out if h.key in found]


def _cut(run: Run, episode: StoredEpisode, first: int, count: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield `count` clips at even distances from frame `first` on, fewer of a short episode."""
    space = run.layout.actions
    try:
        episode = episode.ordered(space.names if space else None)
        frames = episode.read(run.tokenizer.frame_size, run.fps, first + _READ, with_actions=False).frames[first:]
        loaded = episode.actions() if space else None
    except FramepredError:
        return
    length = min(len(frames), CONTEXT + HORIZON)
    actions = loaded[0][first:] if loaded else None
    if length <= CONTEXT or (actions is not None and len(actions) < len(frames) - 1):
        return
    spare = len(frames) - length
    for at in sorted({spare * i // max(1, count - 1) for i in range(count)}):
        yield frames[at : at + length], None if actions is None else actions[at : at + length - 1]


@torch.inference_mode()
def _scores(run: Run, frames: Tensor, actions: Tensor | None, temperature: float) -> dict[str, PixelScores]:
    """Return the scores of one future of a clip beside copying and the tokenizer's ceiling."""
    known = None if actions is None else actions[: CONTEXT - 1]
    tokens, horizon = run.tokenizer.encode(frames[:CONTEXT], known).cpu(), len(frames) - CONTEXT
    made = predict(run, tokens, actions, horizon, 1, Sampling(temperature), first=frames[:CONTEXT])
    future = torch.stack([moment.frames for moment in made], 1)
    return score_forecast(future, frames[CONTEXT:], frames[:CONTEXT], run.tokenizer, actions).rows


def _verdict(done: list[dict[float, dict[str, PixelScores]]], start: Start, fit: Fit) -> Verdict:
    def errors(row: str, temperature: float) -> Tensor:
        return torch.stack([clip[temperature][row].mse.mean() for clip in done])

    copied = errors("copy_last", 0.0)
    trials = []
    for temperature in TEMPERATURES:
        rows = [clip[temperature]["model"] for clip in done]
        sharp, motion = (
            float(sum(getattr(r, top).sum() for r in rows) / max(1e-12, sum(getattr(r, under).sum() for r in rows)))
            for top, under in (("gradient", "true_gradient"), ("change", "true_change"))
        )
        mine = errors("model", temperature)
        trials.append(Trial(temperature, _decibels(mine), sharp, motion, int((mine > copied).sum())))
    best = chosen(trials, _decibels(copied))
    ceiling = _decibels(errors("ceiling", 0.0))
    advice = _advice(best, _decibels(copied), ceiling, start, fit)
    return Verdict(
        len(done), len(done[0][0.0]["model"].mse), best.temperature, best.psnr, _decibels(copied), ceiling,
        best.worse_clips, tuple(trials), fit, advice,
    )  # fmt: skip


def _decibels(errors: Tensor) -> float:
    return round(float(psnr_of(errors.mean())), 4)


def chosen(trials: Sequence[Trial], copying: float) -> Trial:
    """Return the trial whose temperature a run keeps.

    Of those that are nearly as near to the truth as the best, and where any is no worse than copying as that, it is the
    one whose motion is nearest to the true motion.
    """
    best = max(trial.psnr for trial in trials)
    near = [t for t in trials if t.psnr >= best - _NEAR and (t.psnr >= copying or best < copying)]
    return min(near, key=lambda trial: (abs(math.log(max(trial.motion_ratio, 1e-3))), trial.temperature))


def _fit(folder: Path) -> Fit:
    """Say from the validation losses in RUN/metrics.jsonl whether the predictor was trained too long or not enough."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["stage"] == "predictor" and "validation_loss" in row]
    losses = [row["validation_loss"] for row in rows]
    if len(losses) < 3:
        return "unknown"
    if losses[-1] > min(losses) * 1.02:
        return "over"
    return "under" if losses[-1] < losses[len(losses) // 2] * 0.99 else "well"


def _advice(trial: Trial, copying: float, ceiling: float, start: Start, fit: Fit) -> tuple[str, ...]:
    """Return what would help, the most first."""
    found = []
    if ceiling < copying:
        more = "more minutes for the tokenizer"
        what = more if "tokenizer" in start.steps else "a tokenizer trained on these videos (--init-from none)"
        found.append(f"{what}: the present one gives back {ceiling:.1f} dB at best, below copying")
    if fit == "under":
        found.append("more minutes: the validation loss was still falling")
    if fit == "over" or start.videos == 1:
        found.append("more videos" + (": the validation loss rose while it trained" if fit == "over" else ""))
    if start.origin is None and trial.psnr < copying:
        found.append("a start from a trained run (--init-from)")
    return tuple(found) or ("more videos and more minutes",)


def stored_verdict(folder: Path) -> dict[str, Any] | None:
    """Return the verdict that a run keeps, as JSON values; None where it has none."""
    try:
        return dict(json.loads((folder / _FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
