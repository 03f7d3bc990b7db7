"""How far something long is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """So many videos or clips of `total` are `done`; `name` is the last one, `remaining` seconds or None if unknown."""

    done: int
    total: int
    name: str
    remaining: float | None = None
