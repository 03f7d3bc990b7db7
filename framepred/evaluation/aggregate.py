"""The scores of a group's clips → its table: each mean with its interval, its curve and its gain over copying."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from framepred.evaluation.bootstrap import Array, Quantity, interval, resamplings
from framepred.evaluation.clip_scores import ClipScores, Values
from framepred.evaluation.clips import Group
from framepred.evaluation.futures import BASELINES, ROWS
from framepred.evaluation.perceptual import Moments
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.scores import MEASURES
from framepred.world.run import Run

_TOKEN_MEASURES = ("repetition", "cross_entropy", "accuracy", "bits")
COMPARED = ("psnr", "ssim", "motion_psnr", "cross_entropy")


@dataclass
class Table:
    """The scores of a group's clips so far; of the large FID and FVD features only their moments."""

    clips: list[ClipScores] = field(default_factory=list)
    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)

    def add(self, clip: ClipScores) -> None:
        for metric, rows in clip.features.items():
            for row, packed in rows.items():
                flat = np.frombuffer(base64.b64decode(packed["float32"]), np.float32)
                moments = self.moments.setdefault(metric, {}).setdefault(row, Moments())
                moments.add(flat.reshape(packed["shape"]))
        self.clips.append(replace(clip, features={}))


def quantities(rows: Sequence[Values], protocol: Protocol) -> dict[str, Quantity]:
    """Return the metrics of one row over the clips: those that all clips have scores for."""
    sources = MEASURES | {name: (name, None, False) for name in _TOKEN_MEASURES}
    if protocol.psnr == "frame":
        sources["psnr"] = ("psnr", None, False)
    found: dict[str, Quantity] = {}
    for metric, (top, bottom, decibels) in sources.items():
        if all(top in values for values in rows):
            numerator = _matrix([values[top] for values in rows])
            denominator = np.ones_like(numerator) if bottom is None else _matrix([values[bottom] for values in rows])
            found[metric] = Quantity(numerator, denominator, decibels)
    return found


def _matrix(rows: list[list[float]]) -> Array:
    return np.array(rows, dtype=np.float64)


def summarise(group: Group, table: Table, protocol: Protocol, run: Run) -> dict[str, Any]:
    """Return a group's results as strict JSON values: rows, where the model is ahead, spread, ordered clips."""
    clips = table.clips
    facts: dict[str, Any] = {
        "name": group.name, "source": group.source, "alteration": group.alteration, "clips": len(clips),
    }  # fmt: skip
    motions = [clip.motion for clip in clips if clip.motion is not None]
    if len(motions) == len(clips):
        facts["motion"] = round(float(np.mean(motions)), 6)
    rows = {row: _row(table, row, protocol) for row in ROWS}
    for row, values in rows.items():
        if values["clips"] == 0:
            values["note"] = _missing(row, run, protocol)
    facts["rows"] = rows
    for name, row in (("model_ahead", "model"), ("mean_ahead", "model_mean")):
        facts[name] = {other: _ahead(rows[row], rows[other], protocol) for other in (*BASELINES, "ceiling")}
    facts["spread"] = _spread(clips, protocol)
    facts["order"] = _order(clips, protocol)
    facts["retrieved"] = {clip.name: clip.retrieved for clip in clips if clip.retrieved}
    return facts


def _missing(row: str, run: Run, protocol: Protocol) -> str:
    if row == "model_no_actions":
        return "stored tokens are of the true actions alone"
    if row in ("model_true_actions", "model_shuffled_actions"):
        if run.layout.actions is None:
            return "the run was trained without actions"
        return "needs clips with actions" if row == "model_true_actions" else "needs two videos with actions"
    if not protocol.rollout:
        return "a teacher-forced protocol predicts no frames"
    if row == "decoder_alone":
        return "this tokenizer codes each frame by itself: without tokens it has no picture"
    if row == "model_mean":
        return "needs several samples: --samples N"
    return "needs the training clips: --train SOURCE"


def _row(table: Table, row: str, protocol: Protocol) -> dict[str, Any]:
    """Return a row's metrics with intervals and curves, and the difference to copying the last frame."""
    held = [(clip, values) for clip in table.clips if (values := clip.row(row))]
    result: dict[str, Any] = {"clips": len(held), "metrics": {}, "over_copy_last": {}}
    if not held:
        return result
    weights = resamplings(len(held), protocol.bootstrap, protocol.seed)
    copied = quantities([clip.rows["copy_last"] for clip, _ in held], protocol)
    for metric, quantity in quantities([values for _, values in held], protocol).items():
        found = interval(quantity, weights, protocol.confidence)
        if found is None:
            continue
        curve = quantity.by_horizon()[-protocol.horizon :]
        result["metrics"][metric] = found.to_json() | {"by_horizon": curve}
        if metric in COMPARED and metric in copied and row != "copy_last":
            gain = interval(quantity, weights, protocol.confidence, copied[metric])
            result["over_copy_last"][metric] = gain.to_json() if gain else None
    for metric, moments in table.moments.items():
        name = held[0][0].own if row == "model" else row
        distance = moments[name].distance(moments["truth"]) if name in moments else None
        if distance is not None:
            result["metrics"][metric] = {"value": round(distance, 4)}
    return result


def _ahead(model: dict[str, Any], other: dict[str, Any], protocol: Protocol) -> dict[str, list[int]] | None:
    """Return the horizons at which a model row's motion-weighted PSNR is above and below another row's."""
    if "motion_psnr" not in model["metrics"] or "motion_psnr" not in other["metrics"]:
        return None
    pairs = list(
        zip(model["metrics"]["motion_psnr"]["by_horizon"], other["metrics"]["motion_psnr"]["by_horizon"], strict=True)
    )
    known = [(t + 1, a, b) for t, (a, b) in enumerate(pairs) if a is not None and b is not None]
    return {"above": [t for t, a, b in known if a > b], "below": [t for t, a, b in known if a <= b]}


def _spread(clips: list[ClipScores], protocol: Protocol) -> dict[str, Any] | None:
    """Return the diversity and the error of the model's samples; None with one sample."""
    held = [clip.spread for clip in clips if clip.spread]
    if not held:
        return None
    weights = resamplings(len(held), protocol.bootstrap, protocol.seed)
    result: dict[str, Any] = {}
    for name in ("energy", "error", "spread"):
        values = _matrix([h[name] for h in held])
        quantity = Quantity(values, np.ones_like(values))
        found = interval(quantity, weights, protocol.confidence)
        assert found is not None
        result[name] = found.to_json() | {"by_horizon": quantity.by_horizon()}
    ranks = _matrix([h["ranks"] for h in held]).mean(0)
    outside, expected = float(ranks[0] + ranks[-1]), 2 / len(ranks)
    return result | {
        "ranks": [round(float(r), 6) for r in ranks],
        "outside": round(outside, 6),
        "outside_if_calibrated": round(expected, 6),
    }


def _order(clips: list[ClipScores], protocol: Protocol) -> list[dict[str, Any]]:
    """Return the clips from where the model is furthest ahead of copying to where it is furthest behind."""
    if not protocol.rollout:
        return []
    model, copied = (
        quantities([clip.rows[row or clip.own] for clip in clips], protocol)["motion_psnr"].clips()
        for row in ("", "copy_last")
    )
    known = [
        {"clip": clip.name, "model": round(float(m), 4), "copy_last": round(float(c), 4)}
        for clip, m, c in zip(clips, model, copied, strict=True)
        if np.isfinite(m) and np.isfinite(c)
    ]
    return sorted(known, key=lambda k: (k["copy_last"] - k["model"], k["clip"]))
