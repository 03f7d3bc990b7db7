"""What `info` says of videos."""

from pathlib import Path

import pytest
from media import shades

from framepred.errors import FramepredWarning
from framepred.video.write import write_video
from framepred.world.info import describe


def test_a_slow_rate_is_said_in_words_and_a_bad_first_file_does_not_hide_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    write_video(tmp_path / "b.mp4", shades(3, 16, 16), 1 / 3600)
    with pytest.warns(FramepredWarning, match=r"skipped: cannot read .*a\.mp4"):
        facts = describe(str(tmp_path))
    assert (facts["videos"], facts["first"], facts["rate"]) == (2, "b.mp4", "a frame each 3,600 s")
    assert describe(str(tmp_path / "b.mp4"))["fps"] == pytest.approx(1 / 3600)
