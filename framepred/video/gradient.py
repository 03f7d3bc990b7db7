"""How sharp frames are: their image gradient."""

from torch import Tensor


def gradient(frames: Tensor) -> Tensor:
    """Mean absolute difference between neighbouring pixels of uint8 (…, T, 3, H, W), in [0, 1] → float64 (…, T)."""
    pixels = frames.double() / 255
    return (pixels.diff(dim=-1).abs().mean((-3, -2, -1)) + pixels.diff(dim=-2).abs().mean((-3, -2, -1))) / 2
