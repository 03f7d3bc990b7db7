"""RUN/curves.svg, drawn while `framepred train` runs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from framepred.cli.console import say
from framepred.errors import FramepredError
from framepred.io.atomic import write_text

_SHARE = 0.02
"""Of the time of training, what drawing may have taken up to the next curves."""


def drawing_curves(progress: Iterator[Any], run: Path) -> Iterator[Any]:
    """Pass progress on; at validations and at the end draw RUN/curves.svg. Without matplotlib, say once that it is not.

    Validations are passed over while drawing has taken too much of the time.
    """
    from framepred.evaluation.plots import require_matplotlib

    try:
        require_matplotlib()
    except FramepredError:
        say("no curves.svg: pip install 'framepred[report]'")
        yield from progress
        return
    began, spent = time.monotonic(), 0.0
    for item in progress:
        yield item
        now = time.monotonic()
        if any("validation" in name for name in getattr(item, "values", ())) and spent <= _SHARE * (now - began):
            _draw(run)
            spent += time.monotonic() - now
    _draw(run)


def _draw(run: Path) -> None:
    from framepred.evaluation.training_curves import training_curves

    if drawn := training_curves(run):
        write_text(run / "curves.svg", drawn)
