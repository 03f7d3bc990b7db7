"""Frames of any size → frames of one size."""

from torch import Tensor

from framepred.config.frame_size import fit_of
from framepred.io.compat import ensure_torchvision


def fit_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale (T, 3, H, W) to `size` = (height, width), cropped, padded or stretched as a `FrameSize` says."""
    height, width = frames.shape[-2:]
    if (height, width) == size:
        return frames
    ensure_torchvision()
    from torchvision.transforms.v2 import functional as F

    fit = fit_of(size)
    if fit == "stretch":
        return F.resize(frames, list(size), antialias=True)
    scales = size[0] / height, size[1] / width
    if fit == "pad":
        scale = min(scales)
        scaled = [min(size[0], max(1, round(height * scale))), min(size[1], max(1, round(width * scale)))]
    else:
        scale = max(scales)
        scaled = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
    # What is smaller than the frame is set into black.
    return F.center_crop(F.resize(frames, scaled, antialias=True), list(size))
