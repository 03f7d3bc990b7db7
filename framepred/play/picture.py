"""A moment → the bytes that a page draws."""

import io
import json
from typing import Any

from PIL import Image
from torch import Tensor

from framepred.play.game import View


def pack_view(view: View, more: dict[str, Any]) -> bytes:
    """Return a head and pictures: its length in 4 bytes, little-endian, the head in JSON, and PNGs one after another.

    The head has `frame`, `action`, `entropy`, `psnr`, what is in `more`, whether the last picture is `real`, and the
    `sizes` of the PNGs in bytes.
    """
    frames = [*view.pictures, *([] if view.real is None else [view.real])]
    pictures = [_png(frame) for frame in frames]
    head = {
        "frame": view.frame, "action": view.action, "entropy": view.entropy, "psnr": view.psnr,
        "real": view.real is not None, "sizes": [len(picture) for picture in pictures], **more,
    }  # fmt: skip
    text = json.dumps(head, allow_nan=False).encode()
    return b"".join([len(text).to_bytes(4, "little"), text, *pictures])


def _png(frame: Tensor) -> bytes:
    """Encode a picture uint8 (3, H, W) without loss, and fast."""
    file = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", compress_level=1)
    return file.getvalue()
