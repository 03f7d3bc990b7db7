"""Captions of a VizDoom game: its scenario, the buttons pressed, and the events that its variables show."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framepred.sources.captions_csv import Caption

_SECONDS = 1.0
FACTS = ("scene", "action", "event")
"""The kinds of phrases in a caption, in their order."""
_BUTTONS = {
    "NOOP": "standing still", "ATTACK": "shooting", "SPEED": "running", "MOVE_FORWARD": "moving forward",
    "MOVE_BACKWARD": "moving backward", "MOVE_LEFT": "stepping left", "MOVE_RIGHT": "stepping right",
    "TURN_LEFT": "turning left", "TURN_RIGHT": "turning right",
}  # fmt: skip
# Game variable, sign of its change, phrase.
EVENTS = (
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
class Transition:
    """The phrase of the buttons pressed between two frames, and the phrases of the events that followed."""

    buttons: str
    events: tuple[str, ...]


class GameWatcher:
    """Compares a game's variables before and after each step."""

    def __init__(self, game: Any) -> None:
        import vizdoom

        self._game = game
        self._variables = {name: getattr(vizdoom.GameVariable, name) for name, _, _ in EVENTS}
        self._values = self._read()

    def _read(self) -> dict[str, float]:
        return {name: self._game.get_game_variable(variable) for name, variable in self._variables.items()}

    def after(self, action: str | None) -> Transition:
        """Return what happened since the last call, in which the named action was taken."""
        before, self._values = self._values, self._read()
        events = tuple(words for name, sign, words in EVENTS if (self._values[name] - before[name]) * sign > 0)
        return Transition(_phrase(action) if action else "", events)


def _phrase(action: str) -> str:
    """Return the phrase of an action: TURN_LEFT+ATTACK → turning left and shooting."""
    return " and ".join(_BUTTONS.get(b, b.lower().replace("_", " ")) for b in action.split("+"))


def scenario(env: str) -> str:
    """Return an environment's id as words: VizdoomMyWayHome-v1 → my way home."""
    name = env.split("/")[-1].split("-")[0].removeprefix("Vizdoom")
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)).lower()


def narrate(env: str, transitions: list[Transition], fps: float) -> list[Caption]:
    """Return an episode's captions, of about a second each: scenario, the two most frequent actions, events.

    `transitions[t]` lies between frames t and t + 1; each caption describes those between its own frames.
    """
    span = max(2, round(_SECONDS * fps))
    captions = []
    for start in range(0, len(transitions), span):
        described = transitions[start : start + span - 1]
        pressed = [words for words, _ in Counter(m.buttons for m in described if m.buttons).most_common(2)]
        happened = dict.fromkeys(event for m in described for event in m.events)
        text = join_facts({"scene": [scenario(env)], "action": pressed, "event": list(happened)})
        captions.append(Caption(start / fps, min(start + span, len(transitions) + 1) / fps, text))
    return captions


def join_facts(facts: Mapping[str, Sequence[str]]) -> str:
    """Join phrases into a caption: one sentence each for the scene, the actions and the events, where there are any."""
    sentences = [", ".join(facts.get(kind, ())) for kind in FACTS]
    return " ".join(f"{s[0].upper()}{s[1:]}." for s in sentences if s)
