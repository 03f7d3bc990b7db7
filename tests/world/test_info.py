"""What `info` says of videos."""

from pathlib import Path

import pytest
import torch
from media import shades

from framepred.errors import FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import find_videos
from framepred.training.start import look_at_videos
from framepred.video.clock import doubt_rate
from framepred.video.write import write_video
from framepred.world.info import describe


def test_a_slow_rate_is_said_in_words_and_a_bad_first_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    write_video(tmp_path / "b.mp4", shades(3, 16, 16), 1 / 3600)
    with pytest.warns(FramepredWarning, match=r"skipped: cannot read .*a\.mp4"):
        facts = describe(str(tmp_path))
    assert (facts["videos"], facts["first"], facts["rate"]) == (2, "b.mp4", "a frame each 3,600 s")
    assert describe(str(tmp_path / "b.mp4"))["fps"] == pytest.approx(1 / 3600)


@pytest.mark.parametrize(("fps", "says"), [(3000, "3000 frames a second"), (0.0001, "a frame each 10,000 s")])
def test_a_rate_that_can_hardly_be_is_named_by_info_and_by_train(fps: float, says: str, tmp_path: Path) -> None:
    write_video(tmp_path / "odd.mp4", shades(4, 16, 16), fps)
    words = rf"odd(\.mp4)? says {says}, which can hardly be"
    for path in (tmp_path / "odd.mp4", tmp_path):
        with pytest.warns(FramepredWarning, match=words):
            assert describe(str(path))["rate"] == says
    with pytest.warns(FramepredWarning, match=f"{words}: its times may be wrong; every frame is taken"):
        look_at_videos(find_videos([tmp_path]))


def test_actions_that_do_not_match_the_frames_are_named(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", shades(6, 16, 16), 10.0)
    write_actions(tmp_path / "a.actions.csv", torch.zeros(3, dtype=torch.int64), ["go"])
    with pytest.warns(FramepredWarning, match="3 actions for 6 frames: give one row a frame"):
        assert describe(str(tmp_path / "a.mp4"))["actions"].startswith("3 rows of go")


@pytest.mark.parametrize("fps", [1 / 3600, 0.5, 29.97, 1000])
def test_a_rate_that_can_be_is_not_doubted(fps: float) -> None:
    assert doubt_rate(fps) is None
