"""What a page may ask for: text messages, one JSON object each, checked before anything is done with them."""

import json
from dataclasses import dataclass, fields
from typing import Any

from framepred.errors import FramepredError


@dataclass(frozen=True)
class Hold:
    """Take this action from the next frame on; pictures say the `key` of the last such message before them."""

    action: Any
    key: int


@dataclass(frozen=True)
class Step:
    """Take this action once."""

    action: Any
    key: int


@dataclass(frozen=True)
class Pause:
    """Stand still, or go on."""

    on: bool


@dataclass(frozen=True)
class Limit:
    """Show at most so many frames a second."""

    fps: float


@dataclass(frozen=True)
class Restart:
    """Begin again at a moment of the clip."""

    start: int
    seed: int
    temperature: float


@dataclass(frozen=True)
class Fork:
    """Go on in four futures."""


@dataclass(frozen=True)
class Choose:
    """Go on in one of the four."""

    index: int


@dataclass(frozen=True)
class Anchor:
    """Put what really happened in the place of what was imagined."""


@dataclass(frozen=True)
class Keep:
    """Write what was played into files of this name."""

    name: str


Message = Hold | Step | Pause | Limit | Restart | Fork | Choose | Anchor | Keep
KINDS: dict[str, type[Message]] = {
    "hold": Hold, "step": Step, "pause": Pause, "limit": Limit, "restart": Restart, "fork": Fork, "choose": Choose,
    "anchor": Anchor, "keep": Keep,
}  # fmt: skip
_LARGEST = 2**63 - 1


def read_message(text: str) -> Message:
    """Read {"do": KIND, ...} with exactly the fields of its kind; FramepredError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FramepredError("a message must be one JSON object") from error
    kind = KINDS.get(value.pop("do", None)) if isinstance(value, dict) and _is_word(value.get("do")) else None
    if kind is None:
        raise FramepredError(f"a message must say what to do: one of {', '.join(KINDS)}")
    types = {field.name: field.type for field in fields(kind)}
    if value.keys() != types.keys() or not all(_fits(value[name], type_) for name, type_ in types.items()):
        raise FramepredError(f"a message {kind.__name__.lower()} must have: {_spelled(types) or 'nothing more'}")
    return kind(**value)


def _is_word(value: Any) -> bool:
    return isinstance(value, str)


def _fits(value: Any, type_: Any) -> bool:
    if type_ is float:
        return type(value) in (int, float) and abs(value) <= _LARGEST
    if type_ is int:
        return type(value) is int and abs(value) <= _LARGEST
    return type_ is Any or type(value) is type_


def _spelled(types: dict[str, Any]) -> str:
    return ", ".join(f"{name} ({getattr(type_, '__name__', 'action')})" for name, type_ in types.items())
