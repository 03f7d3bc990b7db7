"""How pictures of another shape become frames: cropped, padded or stretched, and never mixed."""

from fractions import Fraction
from pathlib import Path

import pytest
import torch
from media import encode
from torch import Tensor

from framepred.config.frame_size import FITS, Fit, FrameSize, fit_of
from framepred.video.read import read_video
from framepred.video.resize import fit_frames
from framepred.video.write import write_video

RED, GREEN, BLUE, WHITE = (torch.tensor(c)[:, None, None] for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3))


def marked(height: int, width: int, mark: int = 8) -> Tensor:
    """Return one grey frame uint8 (1, 3, H, W) with a mark of its own colour in each corner."""
    frame = torch.full((1, 3, height, width), 100, dtype=torch.uint8)
    for colour, rows, columns in (
        (RED, slice(None, mark), slice(None, mark)),
        (GREEN, slice(None, mark), slice(-mark, None)),
        (BLUE, slice(-mark, None), slice(None, mark)),
        (WHITE, slice(-mark, None), slice(-mark, None)),
    ):
        frame[0, :, rows, columns] = colour.to(torch.uint8)
    return frame


def corners(frame: Tensor) -> Tensor:
    """Return the four corner pixels of a frame (3, H, W) as (4, 3)."""
    return torch.stack([frame[:, y, x] for y in (0, -1) for x in (0, -1)]).long()


COLOURS = torch.stack([c.flatten() for c in (RED, GREEN, BLUE, WHITE)])


@pytest.mark.parametrize(("height", "width"), [(32, 96), (96, 32)])
def test_crop_loses_the_corners_and_pad_and_stretch_keep_them(height: int, width: int) -> None:
    frame = marked(height, width)
    cropped, padded, stretched = (fit_frames(frame, FrameSize((48, 48), fit))[0] for fit in FITS)
    assert (corners(cropped) == 100).all()
    assert torch.equal(corners(stretched), COLOURS)
    # Whole, on black, with its own aspect: a third of the frame is picture.
    inside = padded[:, 16:32] if width > height else padded[:, :, 16:32]
    assert torch.equal(corners(inside), COLOURS)
    assert int((padded.sum(0) > 0).sum()) == 48 * 16
    assert torch.equal(inside, fit_frames(frame, tuple(inside.shape[1:]))[0])


@pytest.mark.parametrize("fit", FITS)
def test_every_fit_gives_the_size_and_leaves_frames_of_that_size(fit: Fit) -> None:
    for sides in ((8, 8), (100, 30), (33, 77)):
        size = FrameSize(sides, fit)
        for frame in (marked(49, 65), marked(600, 9, 4)):
            assert fit_frames(frame, size).shape == (1, 3, *sides)
        same = marked(*sides, 2)
        assert torch.equal(fit_frames(same, size), same)


def test_without_a_word_pictures_are_cropped() -> None:
    frame = marked(32, 96)
    assert torch.equal(fit_frames(frame, (48, 48)), fit_frames(frame, FrameSize((48, 48))))
    assert [fit_of((48, 48)), fit_of(FrameSize((48, 48), "pad"))] == ["crop", "pad"]
    # What is known by its text, as caches are, is another thing with another fit.
    assert len({repr(FrameSize((48, 48), fit)) for fit in FITS}) == 3


def test_pixels_that_are_not_square_are_made_so_before_pictures_fit(tmp_path: Path) -> None:
    """32x32 pixels twice as wide as high are a picture of 32x64, whatever happens to it then."""
    encode(tmp_path / "wide.mp4", marked(32, 32).expand(2, -1, -1, -1), aspect=Fraction(2))
    shown = read_video(tmp_path / "wide.mp4").frames
    assert shown.shape == (2, 3, 32, 64)
    for fit in FITS:
        size = FrameSize((32, 32), fit)
        read = read_video(tmp_path / "wide.mp4", size=size).frames
        assert torch.equal(read, fit_frames(shown, size))
    padded = read_video(tmp_path / "wide.mp4", size=FrameSize((32, 32), "pad")).frames[0]
    assert (padded[:, :8] == 0).all()
    assert (padded[:, 8:24].sum(0) > 0).all()


def test_a_file_is_read_with_the_fit_of_the_size_that_is_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", marked(32, 96).expand(3, -1, -1, -1), 10.0, lossless=True)
    stretched = read_video(tmp_path / "a.mp4", size=FrameSize((16, 16), "stretch")).frames
    assert (corners(stretched[0]) - COLOURS).abs().max() < 30
    assert (corners(read_video(tmp_path / "a.mp4", size=16).frames[0]) == 100).all()
