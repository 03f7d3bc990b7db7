"""Losses and validation over the steps of a training, as SVG text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from framepred.evaluation.plots import make_figure, to_svg

_POINTS = 300
"""Points of a curve at most; of more steps, means are shown."""
_KINDS = {"loss": "loss", "psnr": "PSNR in dB", "bits": "bits a frame"}


def training_curves(run: Path) -> str | None:
    """Draw RUN/metrics.jsonl: a panel a stage and kind of value, a line a value; None where nothing is logged."""
    lines = [line for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    panels: dict[tuple[str, str], dict[str, list[tuple[int, float]]]] = {}
    for row in map(json.loads, lines):
        for name, value in row.items():
            kind = next((kind for kind in _KINDS if kind in name.split("_")), None)
            if kind and value is not None:
                panels.setdefault((row["stage"], kind), {}).setdefault(name, []).append((row["step"], value))
    if not panels:
        return None
    figure, _ = make_figure(4.2 * len(panels), 3.2, len(panels))
    for axes, ((stage, kind), curves) in zip(figure.axes, panels.items(), strict=True):
        for name, points in curves.items():
            _draw(axes, name.replace("_", " "), points)
        axes.set(title=f"{stage}: {_KINDS[kind]}", xlabel="step")
        axes.legend(fontsize=8, frameon=False)
    return to_svg(figure)


def _draw(axes: Any, label: str, points: Sequence[tuple[int, float]]) -> None:
    size = -(-len(points) // _POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    x, y = ([sum(point[axis] for point in part) / len(part) for part in parts] for axis in (0, 1))
    seldom = label.startswith("validation")
    axes.plot(x, y, label=label, linewidth=1.6 if seldom else 1.0, marker="o" if seldom else "", markersize=3)
