"""An episode: frames with their times, and the actions between them."""

from dataclasses import dataclass

from torch import Tensor

from framepred.errors import FramepredError


@dataclass(frozen=True)
class Episode:
    """Frames uint8 (T, 3, H, W) RGB; `actions[t]` is taken after frame t and leads to frame t+1.

    `times` float64 (T,) are the frames' presentation times in seconds, counted from the first; `fps` is the nominal
    rate. Actions have length T or T-1 (the last of T has no outcome): int64 (T,) if discrete, float32 (T, D) if
    continuous, None where there are none; `action_names` are the names of their columns, and of ids (`ActionNames`).
    """

    name: str
    frames: Tensor
    times: Tensor
    fps: float
    actions: Tensor | None = None
    action_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.times) != len(self.frames):
            raise FramepredError(
                f"{self.name} has {len(self.times)} times for {len(self.frames)} frames: give one each"
            )
        check_action_count(self.actions, len(self.frames), self.name)


def check_action_count(actions: Tensor | None, num_frames: int, name: str) -> None:
    """Raise FramepredError unless there is an action between every two frames."""
    if actions is not None and len(actions) not in (num_frames, num_frames - 1):
        raise FramepredError(
            f"{name} has {len(actions)} actions for {num_frames} frames: "
            f"give one row a frame, {num_frames - 1} or {num_frames} rows"
        )
