"""A VizDoom game in words: its scenario, the buttons that are pressed, and what its own variables say."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framepred.sources.captions_csv import Caption

_SECONDS = 1.0
FACTS = ("scene", "action", "event")
"""What a caption tells of, in its order."""
_BUTTONS = {
    "NOOP": "standing still", "ATTACK": "shooting", "SPEED": "running", "MOVE_FORWARD": "moving forward",
    "MOVE_BACKWARD": "moving backward", "MOVE_LEFT": "stepping left", "MOVE_RIGHT": "stepping right",
    "TURN_LEFT": "turning left", "TURN_RIGHT": "turning right",
}  # fmt: skip
# Variable, direction of its change, words.
_EVENTS = (
    ("KILLCOUNT", 1, "a monster dies"),
    ("HITCOUNT", 1, "a shot hits"),
    ("SELECTED_WEAPON_AMMO", -1, "a shot is fired"),
    ("SELECTED_WEAPON_AMMO", 1, "ammunition is found"),
    ("HEALTH", -1, "health is lost"),
    ("HEALTH", 1, "health is gained"),
    ("ARMOR", 1, "armor is found"),
    ("ITEMCOUNT", 1, "an item is picked up"),
)


@dataclass(frozen=True)
class Moment:
    """What was pressed between two frames, and what it led to."""

    buttons: str
    events: tuple[str, ...]


class Watcher:
    """Reads a game's variables after each step."""

    def __init__(self, game: Any) -> None:
        import vizdoom

        self._game = game
        self._variables = {name: getattr(vizdoom.GameVariable, name) for name, _, _ in _EVENTS}
        self._values = self._read()

    def _read(self) -> dict[str, float]:
        return {name: self._game.get_game_variable(variable) for name, variable in self._variables.items()}

    def look(self, action: str | None) -> Moment:
        """Return the moment since the last look, in which the named action was taken."""
        before, self._values = self._values, self._read()
        events = tuple(words for name, sign, words in _EVENTS if (self._values[name] - before[name]) * sign > 0)
        return Moment(_said(action) if action else "", events)


def _said(action: str) -> str:
    """Say an action: TURN_LEFT+ATTACK → turning left and shooting."""
    return " and ".join(_BUTTONS.get(b, b.lower().replace("_", " ")) for b in action.split("+"))


def scenario(env: str) -> str:
    """Say an environment's id: VizdoomMyWayHome-v1 → my way home."""
    name = env.split("/")[-1].split("-")[0].removeprefix("Vizdoom")
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def narrate(env: str, moments: list[Moment], fps: float) -> list[Caption]:
    """Tell an episode in captions of about a second: the scenario, what was mostly pressed, and what happened.

    `moments[t]` lies between frames t and t + 1; each caption tells those between its own frames.
    """
    span = max(2, round(_SECONDS * fps))
    captions = []
    for start in range(0, len(moments), span):
        told = moments[start : start + span - 1]
        pressed = [words for words, _ in Counter(m.buttons for m in told if m.buttons).most_common(2)]
        happened = dict.fromkeys(event for m in told for event in m.events)
        text = tell({"scene": [scenario(env)], "action": pressed, "event": list(happened)})
        captions.append(Caption(start / fps, min(start + span, len(moments) + 1) / fps, text))
    return captions


def tell(facts: Mapping[str, Sequence[str]]) -> str:
    """Say facts in sentences: the phrases of the scene, of the actions and of the events, as far as there are any."""
    sentences = [", ".join(facts.get(kind, ())) for kind in FACTS]
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences if s)


def facts_of(caption: str) -> dict[str, list[str]]:
    """Return the phrases of a caption by their kind, as `tell` was given them; other texts are a scene or more."""
    facts: dict[str, list[str]] = {}
    for place, sentence in enumerate(caption.strip().removesuffix(".").split(". ")):
        phrases = f"{sentence[:1].lower()}{sentence[1:]}".split(", ")
        happened = phrases[0] in {words for _, _, words in _EVENTS}
        facts["event" if happened else "action" if place else "scene"] = phrases
    return facts
