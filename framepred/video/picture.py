"""A decoded frame → the picture that a player shows: RGB, square pixels, upright."""

import math
import struct
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

# Names of FFmpeg's numbers of transfer characteristics of high dynamic range.
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
# A pixel that is more than this many times as wide as high, or as high as wide, is a broken header.
_WIDEST = 8


def square_size(width: int, height: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return (width, height) of a picture whose pixels are made square; no side gets shorter."""
    if not aspect or not 1 / _WIDEST <= aspect <= _WIDEST:
        return width, height
    return (round(width * aspect), height) if aspect > 1 else (width, round(height / aspect))


def to_picture(frame: Any, converter: Any, aspect: Fraction | None) -> Tensor:
    """Return a frame of FFmpeg as uint8 (3, H, W) RGB; `aspect` is a pixel's width over its height."""
    width, height = square_size(frame.width, frame.height, aspect)
    array = converter.reformat(frame, width=width, height=height, format="rgb24").to_ndarray()
    return turn(torch.from_numpy(array), display_matrix(frame)).permute(2, 0, 1)


def display_matrix(frame: Any) -> tuple[float, float, float, float] | None:
    """Return (a, b, c, d) by which the picture's point (x, y) is shown at (ax + cy, bx + dy); None where as it is."""
    found = frame.side_data.get("DISPLAYMATRIX")
    if found is None or len(bytes(found)) < 36:
        return None
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(found)[:36])
    return (a, b, c, d) if a or b or c or d else None


def turn(picture: Tensor, matrix: tuple[float, float, float, float] | None) -> Tensor:
    """Turn and mirror a picture (H, W, 3) by a display matrix, to the nearest quarter turn."""
    if matrix is None:
        return picture
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.transpose(0, 1), c, b
    back = [dim for dim, sign in ((0, d), (1, a)) if sign < 0]
    return picture.flip(back) if back else picture


def is_slanted(matrix: tuple[float, float, float, float] | None) -> bool:
    """Say whether a display matrix turns by something else than quarter turns."""
    if matrix is None:
        return False
    a, b, c, d = map(abs, matrix)
    return min(max(a, d), max(b, c)) > 0.02 * math.hypot(max(a, d), max(b, c))
