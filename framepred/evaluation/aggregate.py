"""Clips' raw numbers → a group's table: every mean with its interval, curve and gain over copying."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from framepred.evaluation.bootstrap import Array, Quantity, interval, resamplings
from framepred.evaluation.clips import Group
from framepred.evaluation.perceptual import Moments
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.scoring import BASELINES, ROWS
from framepred.world.run import Run

# Name → (numerator, denominator, in decibels): which raw values of a clip a metric is the ratio of.
_POOLED = {"pooled": ("mse", None, True), "frame": ("psnr", None, False)}
METRICS = ("psnr", "ssim", "motion_psnr", "lpips", "frozen", "repetition", "cross_entropy", "accuracy", "bits")
_SOURCES: dict[str, tuple[str, str | None, bool]] = {
    "motion_psnr": ("moved", "weight", True),
    **{name: (name, None, False) for name in METRICS if name not in ("psnr", "motion_psnr")},
}
COMPARED = ("psnr", "ssim", "motion_psnr", "cross_entropy")


@dataclass
class Table:
    """What a group's clips add up to: the small raw numbers of each, and moments of the large features."""

    records: list[dict[str, Any]] = field(default_factory=list)
    moments: dict[str, dict[str, Moments]] = field(default_factory=dict)

    def add(self, record: dict[str, Any]) -> None:
        for metric in ("fid", "fvd"):
            for row, packed in record.pop(metric, {}).items():
                flat = np.frombuffer(base64.b64decode(packed["float32"]), np.float32)
                moments = self.moments.setdefault(metric, {}).setdefault(row, Moments())
                moments.add(flat.reshape(packed["shape"]))
        record["rows"]["model"] = record["rows"][record["own"]]
        self.records.append(record)


def quantities(records: Sequence[dict[str, Any]], row: str, protocol: Protocol) -> dict[str, Quantity]:
    """Return a row's metrics over records that all have it."""
    found: dict[str, Quantity] = {}
    raw = [r["rows"][row] for r in records]
    for metric, (top, bottom, decibels) in {"psnr": _POOLED[protocol.psnr], **_SOURCES}.items():
        if all(top in values for values in raw):
            numerator = _matrix([values[top] for values in raw])
            denominator = np.ones_like(numerator) if bottom is None else _matrix([values[bottom] for values in raw])
            found[metric] = Quantity(numerator, denominator, decibels)
    return {metric: found[metric] for metric in METRICS if metric in found}


def _matrix(rows: list[list[float]]) -> Array:
    return np.array(rows, dtype=np.float64)


def summarise(group: Group, table: Table, protocol: Protocol, run: Run) -> dict[str, Any]:
    """Return a group's rows, where the model is ahead, its spread, and its clips in order, as strict JSON values."""
    records = table.records
    facts: dict[str, Any] = {
        "name": group.name, "source": group.source, "alteration": group.alteration, "clips": len(records),
    }  # fmt: skip
    if all("motion" in r for r in records):
        facts["motion"] = round(float(np.mean([r["motion"] for r in records])), 6)
    rows = {row: _row(table, row, protocol) for row in ROWS}
    for row, values in rows.items():
        if values["clips"] == 0:
            values["note"] = _missing(row, run, protocol)
    facts["rows"] = rows
    for name, row in (("model_ahead", "model"), ("mean_ahead", "model_mean")):
        facts[name] = {other: _ahead(rows[row], rows[other], protocol) for other in (*BASELINES, "ceiling")}
    facts["spread"] = _spread(records, protocol)
    facts["order"] = _order(records, protocol)
    facts["retrieved"] = {r["name"]: r["retrieved"] for r in records if r.get("retrieved")}
    return facts


def _missing(row: str, run: Run, protocol: Protocol) -> str:
    if row in ("model_true_actions", "model_shuffled_actions"):
        if run.layout.actions is None:
            return "the run was trained without actions"
        return "needs clips with actions" if row == "model_true_actions" else "needs two videos with actions"
    if not protocol.rollout:
        return "a teacher-forced protocol predicts no frames"
    if row == "model_mean":
        return "needs several samples: --samples N"
    return "needs the training clips: --train SOURCE"


def _row(table: Table, row: str, protocol: Protocol) -> dict[str, Any]:
    """Return a row's metrics with intervals and curves, and what they are more than copying the last frame."""
    held = [r for r in table.records if row in r["rows"]]
    result: dict[str, Any] = {"clips": len(held), "metrics": {}, "over_copy_last": {}}
    if not held:
        return result
    weights = resamplings(len(held), protocol.bootstrap, protocol.seed)
    copied = quantities(held, "copy_last", protocol)
    for metric, quantity in quantities(held, row, protocol).items():
        found = interval(quantity, weights, protocol.confidence)
        if found is None:
            continue
        curve = quantity.by_horizon()[-protocol.horizon :]
        result["metrics"][metric] = found.to_json() | {"by_horizon": curve}
        if metric in COMPARED and metric in copied and row != "copy_last":
            gain = interval(quantity, weights, protocol.confidence, copied[metric])
            result["over_copy_last"][metric] = gain.to_json() if gain else None
    for metric, moments in table.moments.items():
        name = next((r["own"] for r in held), row) if row == "model" else row
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


def _spread(records: list[dict[str, Any]], protocol: Protocol) -> dict[str, Any] | None:
    """Return diversity against error of the model's samples; None with one sample."""
    held = [r["spread"] for r in records if "spread" in r]
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


def _order(records: list[dict[str, Any]], protocol: Protocol) -> list[dict[str, Any]]:
    """Return the clips from where the model is furthest ahead of copying to where it is furthest behind."""
    if not protocol.rollout:
        return []
    scores = {row: quantities(records, row, protocol)["motion_psnr"].clips() for row in ("model", "copy_last")}
    known = [
        {"clip": r["name"], "model": round(float(m), 4), "copy_last": round(float(c), 4)}
        for r, m, c in zip(records, scores["model"], scores["copy_last"], strict=True)
        if np.isfinite(m) and np.isfinite(c)
    ]
    return sorted(known, key=lambda k: (k["copy_last"] - k["model"], k["clip"]))
