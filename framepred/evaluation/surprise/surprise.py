"""A video file and a run → the frames that surprised it, apart from those of which it was only unsure."""

import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.evaluation.surprise.baseline import Baseline
from framepred.evaluation.surprise.calibration import FILE_NAME, Calibration, read_calibration
from framepred.evaluation.surprise.features import FrameScores, score_frames
from framepred.evaluation.surprise.heatmap import ScoredFrame, draw_surprise
from framepred.io.atomic import writing
from framepred.sources.contract import StoredEpisode
from framepred.sources.episode import check_action_count
from framepred.sources.find import find_episode
from framepred.video.write import write_video
from framepred.world.counterfactual import after_other_actions, candidate_actions
from framepred.world.device import choose_device
from framepred.world.footage import given_actions, rate_of_run
from framepred.world.run import Run, load_run

_Watch = Callable[[Iterator[Any], int], Iterator[Any]]


@dataclass(frozen=True)
class TakenAction:
    """The action that explains a frame best, and how much better than the given one others explain it, in nats.

    `odds` is log(mean p of the frame after the other actions / p after the given one): above 0 the video
    speaks against the action file.
    """

    likeliest: int | list[int]
    odds: float

    @property
    def another(self) -> bool:
        """Whether another action than the given one explains the frame at least 20 times as well."""
        return self.odds > math.log(20)


@dataclass(frozen=True)
class Surprise:
    """Scores of every frame of a video but the first, and the baseline they are compared with.

    `times` float64 (T,) are the frames' own, in seconds from the first.
    """

    run: Run
    video: StoredEpisode
    fps: float
    rate: float | None
    times: Tensor
    tokens: Tensor
    actions: Tensor | None
    scores: list[FrameScores]
    baseline: Baseline
    calibration: Calibration | None
    taken: list[TakenAction] | None

    def curve(self) -> list[float | None]:
        """The surprise of each frame, in deviations above the baseline; None for the first, which has no context."""
        return [None, *(self.baseline.surprise(s.features) for s in self.scores)]

    def verdicts(self) -> list[str | None]:
        return [None, *(self.baseline.verdict(s.features) for s in self.scores)]

    def events(self, verdict: str = "surprised") -> list[int]:
        """Return the frames of a verdict, the most surprising first; of neighbours only the highest."""
        curve, verdicts = self.curve(), self.verdicts()
        runs: list[list[int]] = []
        for t in (t for t, v in enumerate(verdicts) if v == verdict):
            if runs and t == runs[-1][-1] + 1:
                runs[-1].append(t)
            else:
                runs.append([t])
        height = {t: value for t, value in enumerate(curve) if value is not None}
        return sorted((max(r, key=lambda t: height[t]) for r in runs), key=lambda t: -height[t])

    def summary(self) -> dict[str, Any]:
        """Return everything as strict JSON values; lists hold one value a frame, null for the first."""
        facts: dict[str, Any] = {
            "model": str(self.run.path),
            "video": self.video.where,
            "frames": len(self.tokens),
            "fps": self.fps,
            "seconds": self.times.tolist(),
            "actions": self.actions is not None,
            "surprise": self.curve(),
            "verdict": self.verdicts(),
            "nll": [None, *(float(s.nll.mean()) for s in self.scores)],
            "entropy": [None, *(float(s.entropy.mean()) for s in self.scores)],
            "nll_other_pasts": [None, *(s.nll_other_pasts for s in self.scores)],
            "accuracy": [None, *(float(s.right.mean()) for s in self.scores)],
            "events": self.events(),
            "limit": self.baseline.limit,
            "baseline": self.baseline_source(),
            "baseline_frames": self.baseline.frames,
        }
        if self.taken is not None:
            facts["action_likeliest"] = [None, *(t.likeliest for t in self.taken)]
            facts["action_odds"] = [None, *(t.odds for t in self.taken)]
        return facts

    def action_words(self, frame: int) -> str:
        """Say which action a frame looks like, where it is another than the given one; else nothing."""
        if self.taken is None or self.actions is None or not frame or not self.taken[frame - 1].another:
            return ""
        space = self.run.layout.actions
        names = values_of(space.names) if space else ()
        likeliest, given = (
            names[action] if names and isinstance(action, int) else action
            for action in (self.taken[frame - 1].likeliest, self.actions[frame - 1].tolist())
        )
        return f"looks like action {likeliest}, given {given}"

    def baseline_source(self) -> str:
        """Say what the baseline statistics were measured on."""
        if self.calibration is None:
            return "this video itself"
        return f"{self.calibration.videos} videos of {self.run.path.name}'s calibration"


def measure_surprise(
    video: str | Path,
    model: str = "doom-64",
    actions: str | None = None,
    calibration: str | None = None,
    inverse: bool = False,
    device: str = "auto",
    watch: _Watch = lambda items, _: items,
) -> Surprise:
    """Score what happens in a video file, teacher-forced: each frame given the real ones before it.

    `actions` is a CSV file, "none", or None for the file beside the video; `calibration` a file, "none", or
    None for the run's own. `inverse` asks of each frame which action it looks like. A video whose rate is
    not the run's is resampled to it, unless an actions file belongs to its frames.
    """
    run = load_run(model, choose_device(device))
    file = find_episode(video, actions)
    given = given_actions(file, actions, run)
    if inverse and given is None:
        raise FramepredError("--inverse asks whether the actions fit, and none are given: give --actions FILE")
    if inverse and run.tokenizer.past_actions:
        raise FramepredError(
            f"--inverse asks which action the tokens look like; those of {run.path} are coded given the action: "
            "leave --inverse out"
        )
    if given and run.layout.actions is None:
        raise FramepredError(f"{given[1]}: the model {run.path} was trained without actions; give --actions none")
    known = _calibration(run, calibration, given is not None)
    taken = None
    if given is not None:
        taken = given[0]
        run.layout.action_ids(taken, len(taken), given[1])
    rate = rate_of_run(file, run, given is not None)
    times = list[Tensor]()
    chunks = _noting(file.stream_timed(run.tokenizer.frame_size, rate), times)
    tokens = torch.cat([part.cpu() for part in run.tokenizer.encode_stream(chunks, taken)])
    if len(tokens) < 2:
        raise FramepredError(f"{video} has {len(tokens)} frame, 2 are needed: the first has nothing before it")
    if given is not None:
        check_action_count(given[0], len(tokens), given[1])
    pasts = known.pasts if known else None
    if pasts and taken is None:
        pasts = pasts.without_actions(run.layout)
    scores = [s for _, s in watch(score_frames(run, tokens, taken, pasts), len(tokens) - 1)]
    if known is None:
        baseline = Baseline.of([s.features for s in scores], held_out=False)
    else:
        condition = known.no_actions if taken is None else known.actions
        assert condition is not None
        baseline = condition.baseline
    answers = list(_taken_actions(run, tokens, taken, watch)) if inverse and taken is not None else None
    fps = rate or file.info().fps
    return Surprise(run, file, fps, rate, torch.cat(times), tokens, taken, scores, baseline, known, answers)


def _noting(chunks: Iterator[tuple[Tensor, Tensor]], times: list[Tensor]) -> Iterator[Tensor]:
    """Yield the frames of chunks, and add their times to a list."""
    for frames, seconds in chunks:
        times.append(seconds)
        yield frames


def _calibration(run: Run, given: str | None, with_actions: bool) -> Calibration | None:
    """Return the calibration to compare with; None, with a warning that says why, where none fits."""
    if given == "none":
        return None
    file = Path(given) if given is not None else run.path / FILE_NAME
    if given is None and not file.exists():
        why = f"{run.path} has no {FILE_NAME}"
    else:
        found = read_calibration(file, run)
        if not with_actions or found.actions:
            return found
        why = f"{file} was made of videos without actions"
    warnings.warn(
        FramepredWarning(
            f"{why}: surprise is measured against this video's own median; framepred calibrate HELD-OUT-VIDEOS "
            f"--model {run.path} measures a baseline for this run"
        ),
        stacklevel=3,
    )
    return None


def _taken_actions(run: Run, tokens: Tensor, actions: Tensor, watch: _Watch) -> Iterator[TakenAction]:
    ids = run.layout.action_ids(actions, len(tokens))
    candidates = candidate_actions(run.layout, ids[: len(tokens) - 1])
    starts = torch.tensor([run.layout.legal(slot)[0] for slot in range(run.layout.row_tokens, run.layout.stride)])
    for frame, log_p in watch(after_other_actions(run, tokens, actions, candidates), len(tokens) - 1):
        given = (candidates == ids[frame - 1]).all(1)
        best = (candidates[int(log_p.argmax())] - starts).tolist()
        space = run.layout.actions
        likeliest = best[0] if space and space.kind == "discrete" else best
        yield TakenAction(likeliest, action_odds(log_p, given))


def action_odds(log_p: Tensor, given: Tensor) -> float:
    """Return log(mean p of a frame after the other actions / p after the given one).

    `log_p` (K,) is of the frame after each of K actions; `given` bool (K,) is true for the given one."""
    others = log_p[~given]
    if not given.any() or not len(others):
        return 0.0
    return float(others.logsumexp(0) - math.log(len(others)) - log_p[given][0])


def write_surprise(surprise: Surprise, out: Path) -> None:
    """Write by file ending: heat maps over the video to .mp4, .mkv, .gif or .webp; arrays to .npz."""
    if out.suffix.lower() == ".npz":
        _write_arrays(surprise, out)
        return
    chunks = surprise.video.stream(surprise.run.tokenizer.frame_size, surprise.rate)
    frames = (frame for chunk in chunks for frame in chunk)
    height, width = surprise.run.layout.grid
    shown = [ScoredFrame(None, None, None, None)]
    judged = zip(surprise.scores, surprise.curve()[1:], surprise.verdicts()[1:], strict=True)
    for t, (scores, value, verdict) in enumerate(judged, 1):
        maps = scores.nll.view(height, width), scores.entropy.view(height, width)
        shown.append(ScoredFrame(*maps, value, verdict, surprise.action_words(t)))
    # A blind guess among all codes has this −log p, but for the factor: only sure and wrong predictions are above.
    top = 1.5 * math.log(surprise.run.layout.codes)
    write_video(out, draw_surprise(frames, shown, top, surprise.baseline.limit), surprise.fps)


def _write_arrays(surprise: Surprise, out: Path) -> None:
    """Write tokens int64 (T, h, w), nll and entropy float32 (T, h, w) and surprise (T,), NaN for the first frame."""
    shape = (-1, *surprise.run.layout.grid)
    tokens = surprise.run.layout.steps(surprise.tokens).reshape(shape)
    nothing = torch.full((1, surprise.run.layout.frame_tokens), torch.nan)
    nll = torch.cat([nothing, *(s.nll[None] for s in surprise.scores)]).view(shape)
    entropy = torch.cat([nothing, *(s.entropy[None] for s in surprise.scores)]).view(shape)
    curve = np.array([np.nan if v is None else v for v in surprise.curve()])
    with writing(out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, tokens=tokens.numpy(), surprise=curve, nll=nll.numpy(), entropy=entropy.numpy())
