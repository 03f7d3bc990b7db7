"""What a player can do: the actions of a run by their names, the keys that take them, and their values."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace

Action = int | tuple[float, ...] | None
"""An action as it is played: an id, the values of all dimensions, or None where a run knows no actions."""

COMMANDS = {"pause": "p", "step": "n", "fork": "f", "anchor": "o", "restart": "r"}
"""The keys of what is no action."""
_IDLE = ("noop", "none", "wait", "nop", "idle")
# What a name says → the keys for it, the best first.
_MEANINGS = (
    (r"turn.?left", ("ArrowLeft", "a")),
    (r"turn.?right", ("ArrowRight", "d")),
    (r"fire|attack|shoot|interact|\bdo\b|\buse\b", (" ", "e")),
    (r"jump", ("j", " ")),
    (r"forward|\bup\b", ("ArrowUp", "w")),
    (r"back|\bdown\b", ("ArrowDown", "s")),
    (r"left", ("ArrowLeft", "a")),
    (r"right", ("ArrowRight", "d")),
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
_PAIRS = (("ArrowLeft", "ArrowRight"), ("ArrowDown", "ArrowUp"), ("a", "d"), ("s", "w"), ("j", "l"), ("k", "i"))


@dataclass(frozen=True)
class Controls:
    """How a run is steered.

    `kind` is "discrete", "continuous" or "none". Of discrete actions `names` and `keys` stand by id; of continuous
    ones by dimension, where a key is a pair, for the least and the greatest value of `ranges`; a dimension without
    keys has two empty strings. `idle` is the action while no key is held.
    """

    kind: str
    names: tuple[str, ...] = ()
    keys: tuple[Any, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    idle: Action = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"commands": COMMANDS}

    def tensor(self, actions: Sequence[Action]) -> Tensor | None:
        """Actions → int64 (T,) or float32 (T, D), as a session and a file take them; None where there are none."""
        if self.kind == "none":
            return None
        if self.kind == "discrete":
            return torch.tensor(actions, dtype=torch.int64)
        return torch.tensor(actions, dtype=torch.float32).view(-1, len(self.ranges))

    def read(self, value: Any) -> Action:
        """A JSON value → an action that the run knows, values beyond a range to its ends; else FramepredError."""
        if self.kind == "none":
            return None
        if self.kind == "discrete":
            if type(value) is int and 0 <= value < len(self.names):
                return value
            raise FramepredError(f"action {value!r:.40} is not known: give an id from 0 to {len(self.names) - 1}")
        numbers = isinstance(value, list) and all(type(v) in (int, float) and math.isfinite(v) for v in value)
        if not numbers or len(value) != len(self.ranges):
            raise FramepredError(f"action {value!r:.40} is not known: give {len(self.ranges)} numbers")
        return tuple(min(max(float(v), low), high) for v, (low, high) in zip(value, self.ranges, strict=True))


def controls_of(space: ActionSpace | None, names: Sequence[str] | None = None) -> Controls:
    """Return the controls of a run's actions; `names` by id where the run does not name discrete ones itself."""
    if space is None:
        return Controls("none")
    if space.kind == "discrete":
        names = values_of(space.names) or names
        known = tuple(names or ())[: space.count]
        known += tuple(f"action {i}" for i in range(len(known), space.count))
        idle = next((i for i, name in enumerate(known) if name.lower() in _IDLE), 0)
        return Controls("discrete", known, _keys(known, idle if names else None), (), idle)
    ranges = tuple(zip(*(bound.tolist() for bound in space.bounds()), strict=True))
    pairs = _PAIRS[: len(ranges)] + (("", ""),) * (len(ranges) - len(_PAIRS))
    idle_values = tuple(0.0 if low <= 0 <= high else (low + high) / 2 for low, high in ranges)
    return Controls("continuous", space.names, pairs, ranges, idle_values)


def _keys(names: Sequence[str], idle: int | None) -> tuple[str, ...]:
    """Choose a key for each action but the idle one: by what the name means, by its letters, or the next free one."""
    keys, free = [""] * len(names), set(_LETTERS) - set(COMMANDS.values())
    taken: set[str] = set()

    def take(i: int, wanted: Sequence[str]) -> None:
        found = next((k for k in wanted if k not in taken and (k in free or len(k) > 1 or k == " ")), "")
        if found and not keys[i]:
            keys[i] = found
            taken.add(found)

    rest = [i for i in range(len(names)) if i != idle]
    words = [re.sub(r"[_\W]+", " ", name.lower()).strip() for name in names]
    for meaning, wanted in _MEANINGS:
        for i in rest:
            if re.search(meaning, words[i]) and not keys[i]:
                take(i, wanted)
    for i in rest:
        own = re.sub("^(place|make|move) ", "", words[i]) if words[i] != f"action {i}" else str(i)
        take(i, [*(w[0] for w in own.split()), *own.replace(" ", ""), *_LETTERS])
    return tuple(keys)
