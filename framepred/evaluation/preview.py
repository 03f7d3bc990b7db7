"""A few episodes as a page: frames that follow each other, and under them the actions between them."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredError
from framepred.evaluation.alignment import Alignment, align
from framepred.io.atomic import write_text
from framepred.io.progress import Progress
from framepred.sources.contract import StoredEpisode
from framepred.sources.episode import Episode

_HEIGHT = 96
_ROW = 34
# Pixels that a letter takes.
_LETTER = 6.5
# Frames of an episode that are read to find the lag of its actions.
_LOOKED_AT = 400
_MOST_VALUES = 16


@dataclass(frozen=True)
class Preview:
    """What a page shows: episodes, and how actions stand to frames, where that could be told."""

    episodes: int
    alignment: Alignment | None

    def to_json(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        found = self.alignment
        lags = None if found is None else {str(lag): round(score, 4) for lag, score in found.scores.items()}
        return {"episodes": self.episodes, "lags": lags, "warning": found.warning if found else None}


def write_preview(
    episodes: Sequence[StoredEpisode], path: Path, most: int = 4, frames: int = 48
) -> Iterator[Progress | Preview]:
    """Write the page of up to `most` episodes, evenly chosen, yielding after each, and at last what was found."""
    template = _template()
    chosen = [episodes[i * len(episodes) // min(most, len(episodes))] for i in range(min(most, len(episodes)))]
    shown, moving = [], []
    for done, stored in enumerate(chosen, 1):
        info = stored.info()
        width = max(16, min(4 * _HEIGHT, round(_HEIGHT * info.width / info.height)))
        episode = stored.read((_HEIGHT, width), max_frames=_LOOKED_AT)
        if episode.actions is not None and len(episode.frames) > 1:
            moving.append((episode.frames, episode.actions))
        shown.append(_section(stored, episode, frames))
        yield Progress(done, len(chosen), stored.name)
    found = Preview(len(chosen), align(moving) if moving else None)
    page = template.render(episodes=shown, total=len(episodes), alignment=found.alignment)
    write_text(path, page)
    yield found


def _template() -> Any:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        raise FramepredError("a preview needs an extra package: pip install 'framepred[report]'") from error
    text = (resources.files("framepred.evaluation") / "preview.html").read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined).from_string(text)


def _section(stored: StoredEpisode, episode: Episode, frames: int) -> dict[str, Any]:
    """Return what the page shows of an episode."""
    info = stored.info()
    pictures = episode.frames[:frames]
    what = f"{info.num_frames or 'an unknown number of'} frames of {info.width} x {info.height}"
    said = stored.captions(episode.times, episode.fps)
    return {
        "name": stored.name,
        "where": stored.where,
        "facts": f"{what}, {episode.fps:g} a second, {info.codec}",
        "captions": [f"{c.start:.2f} to {c.end:.2f} s: {c.text}" for c in said],
        "strip": _jpeg(torch.cat(list(pictures), 2)),
        "width": pictures.shape[0] * pictures.shape[3],
        "rows": _rows(episode, len(pictures), pictures.shape[3]),
        "step": pictures.shape[3],
        "height": _ROW,
        "times": [f"{seconds:.2f} s" for seconds in episode.times[: len(pictures)].tolist()],
    }


def _rows(episode: Episode, count: int, step: int) -> list[dict[str, Any]]:
    """Return rows to draw, each with the values between frames: what moves, then each column of the actions."""
    change = (episode.frames[1:count].float() - episode.frames[: count - 1].float()).abs().mean((1, 2, 3))
    rows = [_curve("motion", change.tolist(), step)]
    if episode.actions is None:
        return rows
    taken = episode.actions[:count]
    if not taken.is_floating_point():
        names = values_of(episode.action_names)
        words = [names[i] if names else str(i) for i in taken.tolist()]
        cells = [{"x": step * t + step, "text": _short(word, step), "title": word, "hue": i * 67 % 360} for t, (i, word)
                 in enumerate(zip(taken.tolist(), words, strict=True))]  # fmt: skip
        return [*rows, {"name": episode.action_names[0], "cells": cells, "points": None, "range": ""}]
    columns = list(zip(episode.action_names, taken.T.tolist(), strict=True))
    return [*rows, *(_curve(name, values, step) for name, values in columns[:_MOST_VALUES])]


def _short(word: str, width: int) -> str:
    """Cut a word that is wider than so many pixels."""
    most = max(2, int((width - 10) / _LETTER))
    return word if len(word) <= most else word[: most - 1] + "…"


def _curve(name: str, values: list[float], step: int) -> dict[str, Any]:
    low, high = min(values, default=0.0), max(values, default=0.0)
    span = high - low if high > low and math.isfinite(high - low) else 1.0
    points = [(step * t + step, _ROW - 4 - (_ROW - 8) * (value - low) / span) for t, value in enumerate(values)]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return {"name": name, "cells": None, "points": text, "range": f"{low:.3g} to {high:.3g}"}


def _jpeg(picture: Tensor) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).save(buffer, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
