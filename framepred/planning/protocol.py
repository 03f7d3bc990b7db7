"""Goal protocols: which goals are set, in how many steps they are to be reached, and what counts, as data; no torch."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from framepred.config.constraints import allow, at_least, below_one, check
from framepred.io.toml import overlay, read_settings, read_table
from framepred.planning.search import Search

DEFAULT = "doom-goals"


@dataclass(frozen=True)
class GoalProtocol:
    """All settings of an experiment in planning but the run. `about` says whose protocol it is.

    A goal is what a random policy reaches `steps` steps after the start, in the episode of a seed from `first_seed` on;
    its action repeats with probability `sticky`. `before` steps of it lead to the start, the last `context` frames of
    which are given. For each number of steps there are `goals` goals, none of them reached at the start, and
    `budget` times as many steps to reach one.

    A goal is reached where the player is within `reach` of its place (in the game's units) and looks within `turn`
    degrees of its direction; in a game that does not tell them, where the picture is within `near`, the root of the
    mean squared difference of pixels, 0 to 1.
    """

    about: str = ""
    env: str = "VizdoomMyWayHome-v1"
    steps: tuple[int, ...] = allow((4, 8, 16), (lambda each: bool(each) and min(each) >= 1, "numbers of 1 or more"))
    goals: int = at_least(1, 50)
    budget: float = allow(2.0, (lambda share: share > 0, "above 0"))
    first_seed: int = at_least(0, 5000)
    before: int = at_least(1, 16)
    context: int = at_least(1, 4)
    sticky: float = below_one(0.75)
    reach: float = allow(20.0, (lambda units: units > 0, "above 0"))
    turn: float = allow(15.0, (lambda degrees: 0 < degrees <= 180, "above 0, at most 180"))
    near: float = allow(0.06, (lambda error: 0 < error <= 1, "above 0, at most 1"))
    search: Search = field(default_factory=Search)

    def __post_init__(self) -> None:
        check(self, "goal protocol: ")

    @property
    def sha256(self) -> str:
        """The hash of every value that can change a number."""
        values = {k: v for k, v in asdict(self).items() if k != "about"}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def load_goal_protocol(
    name_or_file: str | Path = DEFAULT, changes: Mapping[str, Any] | None = None, settings: Iterable[str] = ()
) -> GoalProtocol:
    """Read a goal protocol by built-in name or TOML file, and lay `changes` and `key=value` settings over it."""
    table = read_table(name_or_file, "goal protocol")
    changed = dict(changes or {}) | read_settings(settings)
    result: GoalProtocol = overlay(overlay(GoalProtocol(), table, "goal protocol"), changed, "goal protocol")
    if not changed:
        return result
    words = ", ".join(f"{key} = {value}" for key, value in changed.items() if key != "about")
    return replace(result, about=f"{result.about} Changed here: {words}.".strip())
