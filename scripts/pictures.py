"""Pictures that the scripts make training videos of."""

from pathlib import Path

from torch import Tensor

from framepred.io.compat import ensure_torchvision


def load_picture(path: Path, side: int) -> Tensor:
    """Return a picture as uint8 (3, H, W) of at most `side` pixels a side."""
    ensure_torchvision()
    from PIL import Image
    from torchvision.transforms.v2 import functional as V

    picture = Image.open(path).convert("RGB")
    picture.thumbnail((side, side))
    return V.pil_to_tensor(picture)
