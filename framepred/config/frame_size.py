"""The size of frames, and how pictures of another shape are made to fit."""

from collections.abc import Iterable
from typing import Literal, get_args

Fit = Literal["crop", "pad", "stretch"]
FITS: tuple[Fit, ...] = get_args(Fit)


class FrameSize(tuple[int, int]):
    """(height, width) of frames in pixels, and how a picture of another shape is made to fit.

    `fit` is "crop": scaled to cover the frame, and cut off at the centre; "pad": scaled to lie in the frame whole, its
    borders black; "stretch": height and width scaled apart. Sizes are equal where height and width are.
    """

    fit: Fit

    def __new__(cls, sides: Iterable[int], fit: Fit = "crop") -> "FrameSize":
        made = super().__new__(cls, sides)
        made.fit = fit
        return made

    def __repr__(self) -> str:
        """Return "(64, 64)", or "(64, 64) pad": what is known by this text changes with the fit too."""
        return f"({self[0]}, {self[1]})" + ("" if self.fit == "crop" else f" {self.fit}")


def fit_of(size: tuple[int, int]) -> Fit:
    """Return how pictures are made to fit a size; "crop" where nothing was said."""
    return size.fit if isinstance(size, FrameSize) else "crop"
