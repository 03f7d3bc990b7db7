"""Panels: the context is never shown in the place of a prediction."""

import torch
from torch import Tensor

from framepred.video.panels import draw_filmstrip, draw_moments, draw_panels

CONTEXT = torch.full((2, 3, 16, 16), 255, dtype=torch.uint8)
PREDICTED = torch.full((3, 3, 16, 16), 200, dtype=torch.uint8)
TRUTH = torch.full((2, 3, 16, 16), 150, dtype=torch.uint8)
SIDE = 16


def place(picture: Tensor, cell: int) -> Tensor:
    """Return the middle pixel of a cell: 16 pixels wide with 8 at each side, 22 under the top."""
    return picture[:, 22 + SIDE // 2, cell * 32 + 8 + SIDE // 2]


def test_the_predictions_place_is_empty_while_the_context_is_given() -> None:
    ceiling = torch.full((4, 3, 16, 16), 100, dtype=torch.uint8)
    shown = list(draw_panels(CONTEXT, {"prediction": PREDICTED}, TRUTH, {"prediction": [1.0, 2.0]}, ceiling, SIDE))
    assert len(shown) == 5
    values = [[int(place(picture, cell)[0]) for cell in range(3)] for picture in shown]
    empty = values[0][1]
    assert empty < 50
    # Truth, prediction, ceiling: two moments of context, two with truth, one after the video has ended.
    assert values == [[255, empty, 100]] * 2 + [[150, 200, 100]] * 2 + [[empty, 200, empty]]


def test_only_the_first_row_begins_with_the_context() -> None:
    rows = {"truth": PREDICTED, "prediction": TRUTH.repeat(2, 1, 1, 1)[:3]}
    moments = list(draw_moments(CONTEXT, rows, SIDE))
    assert int(place(moments[0], 0)[0]) == 255
    assert int(place(moments[0], 1)[0]) < 50
    assert (int(place(moments[2], 0)[0]), int(place(moments[2], 1)[0])) == (200, 150)
    strip = draw_filmstrip(CONTEXT, rows, SIDE)
    first = strip[0, :, 104 + SIDE // 2]
    assert bool((first == 255).any())
    assert not bool((first[22 + SIDE + 3 :] > 50).any())
