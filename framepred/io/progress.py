"""Progress of a long operation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """`done` of `total` videos or clips; the `name` of the last one; `remaining` seconds, None where unknown."""

    done: int
    total: int
    name: str
    remaining: float | None = None
