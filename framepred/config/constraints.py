"""The values that a field of a frozen dataclass may have, declared beside the field and checked in one place."""

from collections.abc import Callable
from dataclasses import field, fields
from typing import Any

from framepred.errors import FramepredError

Constraint = tuple[Callable[[Any], bool], str]
"""A condition of a value, and the words that complete "it must be ..."."""


def allow(default: Any, *constraints: Constraint, about: str = "") -> Any:
    """Return a dataclass field with a default, the constraints of its value, and what it is `about`."""
    return field(default=default, metadata={"constraints": constraints, "about": about})


def at_least(least: float, default: Any, about: str = "", words: str = "") -> Any:
    words = words or (f"at least {least}" if least else "0 or more")
    return allow(default, (lambda value: value >= least, words), about=about)


def fraction(default: float, about: str = "") -> Any:
    return allow(default, (lambda value: 0 <= value <= 1, "0 to 1"), about=about)


def below_one(default: float, about: str = "") -> Any:
    return allow(default, (lambda value: 0 <= value < 1, "0 to below 1"), about=about)


def above_zero_below_one(default: float, about: str = "") -> Any:
    return allow(default, (lambda value: 0 < value < 1, "above 0, below 1"), about=about)


def check(target: Any, prefix: str) -> None:
    """Raise FramepredError unless each field of a dataclass meets its constraints; keys begin with `prefix`."""
    for part in fields(target):
        for holds, words in part.metadata.get("constraints", ()):
            value = getattr(target, part.name)
            require(holds(value), f"{prefix}{part.name}", value, words)


def require(holds: bool, key: str, value: object, words: str) -> None:
    """Raise FramepredError, which names a key, its value and what it must be, unless a condition holds."""
    if not holds:
        raise FramepredError(f"{key} = {value} is not allowed; it must be {words}")
