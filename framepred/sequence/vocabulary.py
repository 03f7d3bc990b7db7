"""The vocabulary: which ids are text, frames, context, actions and markers."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Vocabulary:
    """One id space: `[text | visual | context | action | special]`, each a half-open range; specials are single ids.

    `visual` are the codes of frames, which are predicted; `context` those of the pictures that frames are given.
    """

    text_size: int
    visual_size: int
    action_size: int
    context_size: int = 0

    @property
    def visual(self) -> tuple[int, int]:
        return self.text_size, self.text_size + self.visual_size

    @property
    def context(self) -> tuple[int, int]:
        return self.visual[1], self.visual[1] + self.context_size

    @property
    def action(self) -> tuple[int, int]:
        return self.context[1], self.context[1] + self.action_size

    @property
    def no_action(self) -> int:
        """The id that stands for an action that is not given."""
        return self.action[1]

    @property
    def markers(self) -> tuple[int, int]:
        """The ids of `<frames>` and `</frames>`, which a vocabulary with text has."""
        assert self.text_size
        return self.no_action + 1, self.no_action + 2

    @property
    def size(self) -> int:
        return self.no_action + (3 if self.text_size else 1)

    def to_json(self) -> dict[str, Any]:
        special = {"no_action": self.no_action}
        if self.text_size:
            special |= dict(zip(("frames", "/frames"), self.markers, strict=True))
        return {
            "text": [0, self.text_size],
            "visual": list(self.visual),
            **({"context": list(self.context)} if self.context_size else {}),
            "action": list(self.action),
            "special": special,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Vocabulary":
        sizes = [
            stop - start for start, stop in (value.get(p, (0, 0)) for p in ("text", "visual", "action", "context"))
        ]
        vocabulary = Vocabulary(*sizes)
        if vocabulary.to_json() != value:
            raise ValueError(f"vocabulary ranges {value} are not contiguous")
        return vocabulary
