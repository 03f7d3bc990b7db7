"""Evaluation protocols: what is shown, predicted, drawn, counted and averaged, as data; no torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from framepred.config.constraints import allow, at_least, check
from framepred.config.recipe import check_sampling
from framepred.io.toml import overlay, read_settings, read_table

DEFAULT = "future"
RUNS_OWN = -1.0
"""The temperature of a protocol that leaves it to the run."""


def _between(least: int, most: int, default: float, words: str = "") -> Any:
    return allow(default, (lambda n: least <= n <= most, words or f"a whole number from {least} to {most}"))


def _is_size(size: tuple[int, int]) -> bool:
    return size == (0, 0) or all(8 <= side <= 4096 for side in size)


@dataclass(frozen=True)
class Protocol:
    """All settings of an evaluation, except the run and the clips. `about` says whose protocol it is.

    The clips: `size` (height, width) in pixels and `fps`, 0 for the run's own; `context` frames are given,
    `horizon` are predicted, from frame `start` of each video and, with a `stride`, every so many frames
    after; `max_clips` 0 takes all. `rollout` off scores tokens by teacher forcing alone.

    The numbers: `samples` futures drawn with temperature (-1 for the run's own), top_k, top_p and seed; `statistic` is
    their mean or, for every metric and clip anew, the best. `counted` "all" also counts the context, as the tokenizer
    gives it back. `psnr` is of the error pooled over frames and clips, or the mean of each frame's
    decibels. Intervals hold the `confidence` share of `bootstrap` resamplings of the clips.
    """

    about: str = ""
    size: tuple[int, int] = allow((0, 0), (_is_size, "[0, 0] (the run's own) or two sides of 8 to 4096 pixels"))
    fps: float = _between(0, 1000, 0.0, "0 (the run's own) to 1000")
    context: int = _between(1, 10_000, 4)
    horizon: int = _between(1, 10_000, 8)
    start: int = at_least(0, 0)
    stride: int = at_least(0, 0, words="0 (one clip a video) or more")
    max_clips: int = at_least(0, 0, words="0 (all) or more")
    rollout: bool = True
    samples: int = _between(1, 1024, 1)
    temperature: float = _between(-1, 100, RUNS_OWN, "-1 (the run's own) or 0 (greedy) to 100")
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    statistic: Literal["mean", "best"] = "mean"
    counted: Literal["future", "all"] = "future"
    psnr: Literal["pooled", "frame"] = "pooled"
    lpips: Literal["alex", "vgg", "squeeze"] = "alex"
    bootstrap: int = _between(10, 100_000, 1000)
    confidence: float = allow(0.95, (lambda share: 0.5 <= share < 1, "0.5 to below 1"))

    def __post_init__(self) -> None:
        check(self, "protocol: ")
        temperature = 0 if self.temperature == RUNS_OWN else self.temperature
        check_sampling(temperature, self.top_k, self.top_p, self.seed, "protocol: ")

    @property
    def sha256(self) -> str:
        """The hash of every value that can change a number."""
        values = {k: v for k, v in asdict(self).items() if k != "about"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """Return the values and their hash as strict JSON values."""
        return asdict(self) | {"size": list(self.size), "sha256": self.sha256}


def load_protocol(
    name_or_file: str | Path = DEFAULT, changes: Mapping[str, Any] | None = None, settings: Iterable[str] = ()
) -> Protocol:
    """Read a protocol by built-in name or TOML file, and lay `changes` and `key=value` settings over it.

    What the file leaves out takes the defaults.
    """
    table = read_table(name_or_file, "protocol")
    changed = dict(changes or {}) | read_settings(settings)
    result: Protocol = overlay(Protocol(), table | changed, "protocol")
    if not changed:
        return result
    # Else the description of a built-in protocol would stand over numbers of another one.
    words = ", ".join(f"{key} = {value}" for key, value in changed.items() if key != "about")
    return replace(result, about=f"{result.about} Changed here: {words}.".strip())
