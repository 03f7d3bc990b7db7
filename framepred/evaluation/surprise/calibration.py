"""What is usual for a run: how surprised and how sure it is of clips it never saw, and whether its odds hold."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import write_text
from framepred.io.files import file_sha256
from framepred.sources.episode import check_action_count
from framepred.sources.folder import VideoFile
from framepred.world.counterfactual import Pasts, after_other_pasts, join_pasts, take_past
from framepred.world.likelihood import token_logits
from framepred.world.run import Run, weights_file

FILE_NAME = "calibration.json"
_BINS = 15
_STRANGERS = 4
_VERSION = 2
"""Of what figures and surprise are: a calibration of another speaks of something else."""


class Figures(NamedTuple):
    """What a frame is judged by, mean nats a token: see `FrameScores.figures`."""

    local: float
    whole: float
    excess: float
    entropy: float


@dataclass(frozen=True)
class FrameScores:
    """How a frame's N tokens were foreseen, each float32 (N,).

    `nats` is −log p of what happened, `entropy` what that was to be on average, `confidence` the largest
    p of any token, `right` 1 where that was the token that came; `strange` is the mean of −log p had
    other footage come before, or None.
    """

    nats: Tensor
    entropy: Tensor
    confidence: Tensor
    right: Tensor
    strange: float | None = None

    @property
    def figures(self) -> Figures:
        """The frame's figures: something in it (`local`), it all (`whole`), beyond its odds (`excess`), unsure.

        `local` is the mean over the sixteenth of the tokens that surprised most: within a frame the model soon
        notices what has happened and expects the rest. `whole` is −log p against what it was to be (entropy)
        and what it would be out of the blue (`strange`): a frame that is hard to foresee is no surprise, one
        that follows from its past no better than from a stranger's is.
        """
        top = self.nats.topk(max(1, len(self.nats) // 16)).values
        nats, entropy = float(self.nats.mean()), float(self.entropy.mean())
        expected = entropy if self.strange is None else (entropy + self.strange) / 2
        return Figures(float(top.mean()), nats - expected, nats - entropy, entropy)


def score_frames(
    run: Run, tokens: Tensor, actions: Tensor | None, pasts: Pasts | None = None
) -> Iterator[tuple[int, FrameScores]]:
    """Yield (frame, scores) for every one of T frames but the first, given their tokens: given the real past.

    `actions` (≥ T - 1) or None for none; `pasts` are what came before in other footage. What the model
    sees is what a rollout would show it.
    """
    strange = after_other_pasts(run, tokens, actions, pasts) if pasts else repeat((0, None))
    for (frame, logits), (_, other) in zip(token_logits(run, tokens, actions), strange, strict=False):
        wanted = run.layout.steps(tokens)[frame].to(logits.device)
        log_p = logits.log_softmax(-1)
        best, guess = log_p.max(-1)
        scores = FrameScores(
            nats=-log_p.gather(-1, wanted[:, None].long())[:, 0].cpu(),
            entropy=-(log_p.exp() * log_p).sum(-1).cpu(),
            confidence=best.exp().cpu(),
            right=(guess == wanted).float().cpu(),
            strange=None if other is None else float(-other.mean() / len(wanted)),
        )
        yield frame, scores


@dataclass(frozen=True)
class Scale:
    """What is usual of a figure: median, spread (1.4826 · median absolute deviation), and the limit of the usual."""

    median: float
    spread: float
    limit: float

    @staticmethod
    def of(values: Sequence[float], quantile: float | None) -> "Scale":
        """Measure a figure of ordinary frames; without a `quantile` the limit is five spreads over the median."""
        known = torch.tensor(values, dtype=torch.float64)
        median = known.median()
        spread = float(1.4826 * (known - median).abs().median())
        limit = (
            float(median) + 5 * spread
            if quantile is None
            else float(known.sort().values[int(quantile * (len(known) - 1))])
        )
        return Scale(float(median), spread, limit)

    def scaled(self, value: float) -> float:
        """Return by how many spreads a value is above the median."""
        return (value - self.median) / max(self.spread, 1e-3)


@dataclass(frozen=True)
class Usual:
    """The scales of the figures, over so many frames, and the `limit` that one frame in a hundred exceeds."""

    local: Scale
    whole: Scale
    excess: Scale
    entropy: Scale
    limit: float
    frames: int

    @staticmethod
    def of(figures: Sequence[Figures], held_out: bool = True) -> "Usual":
        """Measure frames that are known to be ordinary (`held_out`), or a video by its own."""
        local, whole, excess, entropy = zip(*figures, strict=True)
        high, most = (0.99, 0.95) if held_out else (None, None)
        scales = Usual(
            Scale.of(local, high),
            Scale.of(whole, high),
            Scale.of(excess, most),
            Scale.of(entropy, high),
            5.0,
            len(figures),
        )
        if not held_out:
            return scales
        return replace(scales, limit=Scale.of([scales.surprise(f) for f in figures], high).limit)

    def surprise(self, figures: Figures) -> float:
        """By how many spreads a frame is above the usual: the mean of what some of its tokens say and what all do."""
        return (self.local.scaled(figures.local) + self.whole.scaled(figures.whole)) / 2

    def verdict(self, figures: Figures) -> str:
        """Say what a frame was: "surprised" (sure and wrong), "unsure" (nothing definite was expected) or "usual"."""
        above = self.surprise(figures) > self.limit
        if above and figures.excess > self.excess.limit:
            return "surprised"
        return "unsure" if above or figures.entropy > self.entropy.limit else "usual"


@dataclass(frozen=True)
class Reliability:
    """The reliability diagram of the likeliest token: per bin of confidence, count, mean confidence, accuracy.

    `ece` is the expected calibration error: |confidence - accuracy|, weighted by count (arXiv 1706.04599).
    """

    count: tuple[int, ...]
    confidence: tuple[float | None, ...]
    accuracy: tuple[float | None, ...]
    ece: float

    @staticmethod
    def of(sums: Tensor) -> "Reliability":
        """From the sums of `bin_odds`, (3, bins)."""
        count = sums[0].long()
        confidence, accuracy = (
            tuple(float(s / n) if n else None for s, n in zip(row, count, strict=True)) for row in sums[1:]
        )
        ece = float((sums[1] - sums[2]).abs().sum() / sums[0].sum().clamp(min=1))
        return Reliability(tuple(count.tolist()), confidence, accuracy, ece)


def bin_odds(confidence: Tensor, right: Tensor) -> Tensor:
    """Confidence in (0, 1] and right (0 or 1), each (n,) → sums float64 (3, 15): count, confidence, right."""
    place = (confidence.double() * _BINS).ceil().long().clamp(1, _BINS) - 1
    parts = (torch.ones_like(confidence), confidence, right)
    return torch.stack([torch.bincount(place, weights=x.double(), minlength=_BINS) for x in parts])


@dataclass(frozen=True)
class Condition:
    """What held-out clips say of a run with or without actions: nats a token, accuracy, odds, what is usual."""

    nats: float
    accuracy: float
    reliability: Reliability
    usual: Usual

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Condition":
        odds, usual = value["reliability"], value["usual"]
        counts, confidence, accuracy = (tuple(odds[name]) for name in ("count", "confidence", "accuracy"))
        local, whole, excess, entropy = (Scale(**usual[name]) for name in Figures._fields)
        return Condition(
            value["nats"],
            value["accuracy"],
            Reliability(counts, confidence, accuracy, odds["ece"]),
            Usual(local, whole, excess, entropy, usual["limit"], usual["frames"]),
        )


@dataclass(frozen=True)
class Calibration:
    """What `videos` held-out clips say of a run: `actions` and `no_actions`, and the `pasts` they were measured by."""

    videos: int
    pasts: Pasts | None
    no_actions: Condition
    actions: Condition | None

    def to_json(self) -> dict[str, Any]:
        pasts = self.pasts and {"tokens": self.pasts.tokens.tolist(), "action_ids": self.pasts.action_ids.tolist()}
        values = {"videos": self.videos, "no_actions": asdict(self.no_actions)}
        return values | {"actions": asdict(self.actions) if self.actions else None, "pasts": pasts}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Calibration":
        pasts, actions = value["pasts"], value["actions"]
        return Calibration(
            value["videos"],
            Pasts(torch.tensor(pasts["tokens"]), torch.tensor(pasts["action_ids"]).long()) if pasts else None,
            Condition.from_json(value["no_actions"]),
            Condition.from_json(actions) if actions else None,
        )


class _Tally:
    """Scores of many frames, kept as sums and four figures a frame: memory does not grow with their tokens."""

    def __init__(self) -> None:
        self.odds = torch.zeros(3, _BINS, dtype=torch.float64)
        self.nats = 0.0
        self.figures: list[Figures] = []

    def add(self, frame: FrameScores) -> None:
        self.odds += bin_odds(frame.confidence, frame.right)
        self.nats += float(frame.nats.double().sum())
        self.figures.append(frame.figures)

    def condition(self) -> Condition:
        tokens = float(self.odds[0].sum())
        return Condition(
            self.nats / tokens, float(self.odds[2].sum()) / tokens, Reliability.of(self.odds), Usual.of(self.figures)
        )


@dataclass(frozen=True)
class CalibrationProgress:
    """How far it is: videos of `total`, frames scored; with the last one, what they say."""

    done: int
    total: int
    frames: int
    result: Calibration | None = None


def calibrate(run: Run, videos: Sequence[VideoFile]) -> Iterator[CalibrationProgress]:
    """Score every frame of `videos` without actions, and with them where the run and all videos have some.

    The last progress holds the result. Raises FramepredError for what is no video, too short, or has
    actions that do not fit.
    """
    with_actions = run.layout.actions is not None and all(v.actions_file for v in videos)
    places = sorted({i * len(videos) // _STRANGERS for i in range(_STRANGERS)}) if len(videos) > 1 else []
    taken = {i: take_past(run, *_read(run, videos[i], with_actions)) for i in places}
    owners = [i for i, past in taken.items() if past]
    pasts = join_pasts([past for past in taken.values() if past])
    tallies = {"no_actions": _Tally()} | ({"actions": _Tally()} if with_actions else {})
    count = 0
    for done, video in enumerate(videos):
        tokens, actions = _read(run, video, with_actions)
        # Nobody is a stranger to himself.
        others = pasts.without(owners.index(done) if done in owners else None) if pasts else None
        for name, tally in tallies.items():
            told = name == "actions"
            strangers = others if told or others is None else others.without_actions(run.layout)
            for _, frame in score_frames(run, tokens, actions if told else None, strangers):
                tally.add(frame)
                count += 1
                yield CalibrationProgress(done, len(videos), count)
    made = {name: tally.condition() for name, tally in tallies.items()}
    result = Calibration(len(videos), pasts, made["no_actions"], made.get("actions"))
    yield CalibrationProgress(len(videos), len(videos), count, result)


def _read(run: Run, video: VideoFile, with_actions: bool) -> tuple[Tensor, Tensor | None]:
    """Return a video's tokens and its actions, checked against each other."""
    chunks = video.stream(run.tokenizer.frame_size, run.fps)
    tokens = torch.cat([part.cpu() for part in run.tokenizer.encode_stream(chunks)])
    if len(tokens) < 2:
        raise FramepredError(f"{video.path} has {len(tokens)} frame, 2 are needed: give longer videos")
    loaded = video.actions() if with_actions else None
    if loaded is None:
        return tokens, None
    check_action_count(loaded[0], len(tokens), str(video.actions_file))
    assert run.layout.actions is not None
    run.layout.actions.encode(loaded[0], str(video.actions_file))
    return tokens, loaded[0]


def write_calibration(file: Path, run: Run, calibration: Calibration) -> None:
    """Write a calibration, with the hash of the weights that it speaks of."""
    sha256 = file_sha256(weights_file(run.path))
    about = {"kind": "calibration", "version": _VERSION, "model_sha256": sha256}
    write_text(file, json.dumps(about | calibration.to_json(), allow_nan=False) + "\n")


def read_calibration(file: Path, run: Run) -> Calibration:
    """Read what `write_calibration` wrote; FramepredError for what is damaged or speaks of other weights."""
    again = f"make it again: framepred calibrate SOURCE --model {run.path} --overwrite"
    try:
        value = json.loads(file.read_text())
        if value["kind"] != "calibration":
            raise ValueError(f"kind {value['kind']!r}")
        if value.get("version", 1) != _VERSION:
            raise FramepredError(f"{file} was made by a framepred that measured surprise in another way: {again}")
        calibration = Calibration.from_json(value)
    except FileNotFoundError:
        raise FramepredError(f"calibration {file} does not exist: make it with framepred calibrate") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FramepredError(f"{file} is no calibration of a run ({error!r}): {again}") from error
    if value["model_sha256"] != file_sha256(weights_file(run.path)):
        raise FramepredError(f"{file} was made with other weights than those of {run.path}: {again}")
    return calibration
