"""An episode: frames, the actions between them, and their rate."""

from dataclasses import dataclass

from torch import Tensor

from framepred.errors import FramepredError


@dataclass(frozen=True)
class Episode:
    """Frames uint8 (T, 3, H, W) RGB; `actions[t]` is taken after frame t and leads to frame t+1.

    Actions have length T or T-1 (the last of T has no outcome): int64 (T,) if discrete,
    float32 (T, D) if continuous, None where there are none.
    """

    frames: Tensor
    actions: Tensor | None
    fps: float
    name: str

    def __post_init__(self) -> None:
        check_action_count(self.actions, len(self.frames), self.name)


def check_action_count(actions: Tensor | None, num_frames: int, name: str) -> None:
    """Raise FramepredError unless there is an action between every two frames."""
    if actions is not None and len(actions) not in (num_frames, num_frames - 1):
        raise FramepredError(
            f"{name} has {len(actions)} actions for {num_frames} frames: "
            f"give one row a frame, {num_frames - 1} or {num_frames} rows"
        )
