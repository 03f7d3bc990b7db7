"""Augmented frames: still frames, made of the batch's own pixels, the same for the same generator."""

import pytest
import torch
from torch import Tensor

from framepred.training.augment import _lit, _pasted, augment


def frames(count: int = 6, size: tuple[int, int] = (24, 40)) -> Tensor:
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_frames_stay_frames_and_the_generator_decides(share: float) -> None:
    given = frames()
    kept = given.clone()
    result = augment(given, share, generator())
    assert result.shape == given.shape and result.dtype == torch.uint8
    assert torch.equal(given, kept)
    assert torch.equal(result, augment(given, share, generator()))
    assert torch.equal(result, given) is (share == 0)
    assert share == 0 or not torch.equal(result, augment(given, share, generator(1)))


def test_a_pasted_frame_is_itself_around_one_rectangle_of_the_frame_before() -> None:
    given = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1).expand(6, 3, 24, 40) * 10
    result = _pasted(given, 1.0, generator())
    for i, frame in enumerate(result):
        pasted = frame[0] == given[i - 1, 0, 0, 0]
        rows, columns = pasted.any(1).nonzero().flatten(), pasted.any(0).nonzero().flatten()
        height, width = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert int(pasted.sum()) == height * width
        assert 3 <= height <= 18 and 6 <= width <= 30
        assert bool((frame[0][~pasted] == given[i, 0, 0, 0]).all())


def test_other_light_keeps_what_is_brighter_brighter() -> None:
    given = torch.arange(40, 200, dtype=torch.uint8)[:, None, None].expand(3, 3, 160, 1, 1)[..., 0].contiguous()
    result = _lit(given, 1.0, generator()).int()
    assert not torch.equal(result, given.int())
    assert bool((result[:, :, 1:] >= result[:, :, :-1]).all())
