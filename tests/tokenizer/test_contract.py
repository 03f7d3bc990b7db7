"""The tokenizer contract: what a frame is given at a clip's beginning and later."""

import pytest
import torch
from doubles import Blocks

from framepred.tokenizer.contract import actions_before, last_pictures


class Two(Blocks):
    """A tokenizer that sees two pictures and three actions; a token is a picture's brightness."""

    past, past_actions = 2, 3

    def decode(
        self, tokens: torch.Tensor, actions: torch.Tensor | None = None, first: torch.Tensor | None = None
    ) -> torch.Tensor:
        return tokens.flatten(1)[:, :, None, None].expand(-1, 3, 16, 16).byte()


def test_a_tokenizer_of_single_frames_is_given_nothing() -> None:
    assert last_pictures(Two(), torch.zeros(4, 1, 1)).shape == (1, 2, 3, 16, 16)
    assert last_pictures(Blocks(), torch.zeros(4, 1, 1)).shape == (1, 0, 3, 16, 16)  # type: ignore[arg-type]
    assert actions_before(Blocks(), torch.arange(4), 2) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("frames", "seen"), [(1, [10, 10]), (2, [10, 11]), (4, [12, 13])])
def test_the_first_picture_is_repeated_where_there_are_too_few(frames: int, seen: list[int]) -> None:
    tokens = torch.arange(10, 10 + frames).view(-1, 1, 1)
    assert last_pictures(Two(), tokens)[0, :, 0, 0, 0].tolist() == seen


@pytest.mark.parametrize(("frames", "seen"), [(1, [99, 10]), (2, [10, 11]), (4, [12, 13])])
def test_a_clip_begins_from_its_first_picture_itself_where_that_is_known(frames: int, seen: list[int]) -> None:
    tokens = torch.arange(10, 10 + frames).view(-1, 1, 1)
    first = torch.full((3, 16, 16), 99, dtype=torch.uint8)
    assert last_pictures(Two(), tokens, None, first)[0, :, 0, 0, 0].tolist() == seen


@pytest.mark.parametrize(
    ("frame", "given"), [(1, [-1, -1, 5]), (2, [-1, 5, 6]), (3, [5, 6, 7]), (4, [6, 7, 8]), (5, [7, 8, -1])]
)
def test_actions_that_are_not_there_are_not_given(frame: int, given: list[int]) -> None:
    assert actions_before(Two(), torch.tensor([5, 6, 7, 8]), frame).tolist() == [given]
    for values in (torch.tensor([5.0, 6, 7, 8]), torch.tensor([[5.0, 1], [6, 1], [7, 1], [8, 1]])):
        found = actions_before(Two(), values, frame)[0]
        assert found.shape == (3, values[0].numel())
        assert found[:, 0].nan_to_num(-1).tolist() == given
