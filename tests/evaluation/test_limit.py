"""A tokenizer that does not know the pictures is named before a predictor is trained on its tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import FPS, moving_square
from torch import Tensor

from framepred.evaluation.limit import doubt_tokenizer
from framepred.io import zoo
from framepred.sources.folder import VideoFile
from framepred.training.held_out import HeldOut
from framepred.training.start import Start
from framepred.video.write import write_video

SHADES = torch.randint(0, 256, (30, 1, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FLASHES = SHADES.expand(-1, 3, 64, 64)
STILL = moving_square(3, 1)[0].expand(30, -1, -1, -1)


def doubt(run: Path, frames: Tensor, where: Path, **changes: object) -> str | None:
    write_video(where / "clip.mp4", frames, FPS, lossless=True)
    held = HeldOut("clip", VideoFile(where / "clip.mp4", "").key, len(frames) - 2)
    start = Start(1, None, None, (FPS,), (64, 64), (), (held,), None, "cpu", 1, {}, 0.0, {"predictor": 1})
    return doubt_tokenizer(run, [str(where / "clip.mp4")], replace(start, **changes))  # type: ignore[arg-type]


def test_where_nothing_moves_copying_is_better_than_any_tokenizer(tiny_run: Path, tmp_path: Path) -> None:
    said = doubt(tiny_run, STILL, tmp_path)
    assert said is not None
    assert "gives clip back at " in said
    assert "copying the last frame has 100.0 dB over 8 frames" in said
    assert "--init-from none" in said


def test_where_every_frame_is_new_copying_is_no_rival(tmp_path: Path) -> None:
    """Plain grey that flashes: the shipped tokenizer knows it, and the last frame says nothing of the next."""
    assert doubt(zoo.resolve("models", "doom-64"), FLASHES, tmp_path) is None


@pytest.mark.parametrize(
    "changes",
    [{"steps": {"tokenizer": 1, "predictor": 1}}, {"held_out": ()}, {"held_out": (HeldOut("x", "gone.mp4"),)}],
)
def test_nothing_is_said_of_a_tokenizer_to_come_or_without_pictures(
    changes: dict[str, object], tiny_run: Path, tmp_path: Path
) -> None:
    assert doubt(tiny_run, STILL, tmp_path, **changes) is None


def test_too_few_frames_say_nothing(tiny_run: Path, tmp_path: Path) -> None:
    assert doubt(tiny_run, STILL[:8], tmp_path) is None
