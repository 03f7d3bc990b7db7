"""A run's calibration: its probabilities and features on held-out videos, and the file that holds them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from framepred.errors import FramepredError
from framepred.evaluation.surprise.baseline import Baseline, Statistics
from framepred.evaluation.surprise.features import Features
from framepred.evaluation.surprise.reliability import Reliability
from framepred.io.atomic import write_text
from framepred.io.files import file_sha256
from framepred.world.counterfactual import Pasts
from framepred.world.run import Run, weights_file

FILE_NAME = "calibration.json"
_VERSION = 3
"""Of the features and of the surprise made of them: the numbers of another version mean something else."""


@dataclass(frozen=True)
class Condition:
    """A run with or without actions on held-out videos: mean NLL a token (nats), accuracy, reliability, baseline."""

    nll: float
    accuracy: float
    reliability: Reliability
    baseline: Baseline

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Condition":
        diagram, baseline = value["reliability"], value["baseline"]
        counts, confidence, accuracy = (tuple(diagram[name]) for name in ("count", "confidence", "accuracy"))
        statistics = {name: Statistics(**baseline[name]) for name in Features._fields}
        return Condition(
            value["nll"],
            value["accuracy"],
            Reliability(counts, confidence, accuracy, diagram["ece"]),
            Baseline(**statistics, limit=baseline["limit"], frames=baseline["frames"]),
        )


@dataclass(frozen=True)
class Calibration:
    """A run on `videos` held-out videos, without and with `actions`; `pasts` are stretches of other videos."""

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


def write_calibration(file: Path, run: Run, calibration: Calibration) -> None:
    """Write a calibration, with the hash of the weights that it was measured with."""
    sha256 = file_sha256(weights_file(run.path))
    about = {"kind": "calibration", "version": _VERSION, "model_sha256": sha256}
    write_text(file, json.dumps(about | calibration.to_json(), allow_nan=False) + "\n")


def read_calibration(file: Path, run: Run) -> Calibration:
    """Read what `write_calibration` wrote; FramepredError for a damaged file, another version or other weights."""
    again = f"make it again: framepred calibrate SOURCE --model {run.path} --overwrite"
    try:
        value = json.loads(file.read_text())
        if value["kind"] != "calibration":
            raise ValueError(f"kind {value['kind']!r}")
        if (version := value.get("version", 1)) != _VERSION:
            raise FramepredError(f"{file} is a calibration of version {version}, version {_VERSION} is needed: {again}")
        calibration = Calibration.from_json(value)
    except FileNotFoundError:
        raise FramepredError(f"calibration {file} does not exist: make it with framepred calibrate") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FramepredError(f"{file} is no calibration of a run ({error!r}): {again}") from error
    if value.get("model_sha256") != file_sha256(weights_file(run.path)):
        raise FramepredError(f"{file} was made with other weights than those of {run.path}: {again}")
    return calibration
