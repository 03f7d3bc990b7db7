"""LPIPS on weights that the user has: a loss for tokenizers and a metric for evaluation."""

import re
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision

Net = Literal["alex", "vgg", "squeeze"]


def load_lpips(path: Path, net: Net) -> nn.Module:
    """Return LPIPS (arXiv 1801.03924) with torchvision's `net` from a safetensors file as its backbone.

    Pairs of float frames (B, 3, H, W) in [-1, 1] → (B, 1, 1, 1); gradients reach the frames.
    """
    if not path.is_file():
        raise FramepredError(f"weights {path} do not exist: give the file")
    ensure_torchvision()
    try:
        from torchmetrics.functional.image.lpips import _LPIPS
    except ImportError as error:
        raise FramepredError("LPIPS needs torchmetrics: pip install 'framepred[lpips]'") from error
    # A random backbone, so that nothing is downloaded; the linear heads come with torchmetrics.
    model = _LPIPS(pretrained=True, net=net, pnet_rand=True)
    try:
        given = load_file(path)
    except (SafetensorError, OSError) as error:
        raise FramepredError(
            f"{path} is no safetensors file ({error}): save the state_dict of torchvision's {net} with "
            "safetensors.torch.save_file"
        ) from error
    backbone = {k.removeprefix("features."): v for k, v in given.items() if k.startswith("features.")}
    own = {k: v for k, v in model.net.state_dict().items() if k.startswith("slice")}
    # torchmetrics cuts the backbone into slices, whose layers keep torchvision's numbers.
    wanted = {k: backbone.get(re.sub(r"^slices?\.?\d+\.", "", k)) for k in own}
    if any(v is None or v.shape != own[k].shape for k, v in wanted.items()):
        raise FramepredError(f"{path} is not torchvision's {net}: give its weights, or another protocol.lpips")
    model.net.load_state_dict({**model.net.state_dict(), **wanted})
    return model.eval().requires_grad_(False)
