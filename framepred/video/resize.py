"""Frames of any size → frames of one size."""

from torch import Tensor

from framepred.io.compat import ensure_torchvision


def fit_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale (T, 3, H, W) to cover `size` = (height, width) and crop the centre."""
    height, width = frames.shape[-2:]
    if (height, width) == size:
        return frames
    ensure_torchvision()
    from torchvision.transforms.v2 import functional as F

    scale = max(size[0] / height, size[1] / width)
    cover = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    return F.center_crop(F.resize(frames, cover, antialias=True), list(size))
