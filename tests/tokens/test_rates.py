"""Rates of a store's episodes: from a frame an hour to 1,000 a second, and where they differ it is said."""

import warnings
from pathlib import Path

import pytest
import torch
from media import encode, shades

from framepred.errors import FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import VideoFile, find_videos
from framepred.tokens.store import TokenEpisode, read_store
from framepred.tokens.tokenize import tokenize
from framepred.training.frames import sample_frames
from framepred.training.initialisation import common_fps
from framepred.video.probe import probe_video
from framepred.video.read import read_video
from framepred.video.write import write_video


class Means:
    """A token is the mean of a frame."""

    codebook_size, context_codebook_size = 256, 0
    grid, context_grid, frame_size, past = (1, 1), (0, 0), (16, 16), 0

    def encode_stream(self, chunks, actions=None):
        return (chunk.float().mean((1, 2, 3)).long().view(-1, 1, 1) for chunk in chunks)


def store(folder: Path, fps: float | None = None) -> list[TokenEpisode]:
    out = folder.parent / f"store-{fps}"
    list(tokenize(find_videos([folder]), out, Means(), "t", "a" * 64, fps=fps))
    return read_store(out)


def test_rates_that_differ_are_said_unless_they_are_made_one(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    for name, fps in (("a", 10.0), ("b", 30.0), ("c", 30000 / 1001)):
        write_video(folder / f"{name}.mp4", shades(12, 16, 16), fps)
    said = r"the episodes' rates differ \(2 of 29\.97 frames a second; 1 of 10 frames a second\): --fps resamples"
    with pytest.warns(FramepredWarning, match=said):
        store(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [e.fps for e in store(folder, 5.0)] == [5.0] * 3
    write_actions(folder / "a.actions.csv", torch.zeros(12, dtype=torch.int64), ["action"])
    with pytest.warns(FramepredWarning, match=r"1 of 3 episodes are not resampled to 6 frames a second .*: actions"):
        assert sorted(e.fps for e in store(folder, 6.0)) == [6.0, 6.0, 10.0]


@pytest.mark.parametrize("fps", [1 / 3600, 1 / 120, 0.3, 1000.0])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_slow_and_fast_rates_come_back_as_they_were_written(tmp_path: Path, fps: float, suffix: str) -> None:
    folder = tmp_path / "v"
    write_video(folder / f"a{suffix}", shades(6, 16, 16), fps)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (episode,) = store(folder)
    assert episode.fps == pytest.approx(fps, rel=1e-6)
    assert episode.times is not None
    assert episode.times.tolist() == pytest.approx([k / fps for k in range(6)], abs=6e-4)
    assert common_fps([episode]) == pytest.approx(fps, rel=1e-5)


@pytest.mark.parametrize(("suffix", "fps", "shown"), [(".gif", 1 / 3600, 1 / 655.35), (".gif", 1000.0, 50.0)])
def test_what_an_animation_cannot_show_is_said(tmp_path: Path, suffix: str, fps: float, shown: float) -> None:
    path = tmp_path / f"a{suffix}"
    with pytest.warns(FramepredWarning, match=r"\.gif cannot show .*: it is written at"):
        write_video(path, shades(4, 16, 16), fps)
    assert probe_video(path).fps == pytest.approx(shown)


@pytest.mark.parametrize("fps", [7.0, 12.0, 24.0, 30.0])
def test_a_gif_keeps_its_length_though_it_counts_in_hundredths_of_a_second(tmp_path: Path, fps: float) -> None:
    write_video(tmp_path / "a.gif", shades(60, 16, 16), fps)
    assert probe_video(tmp_path / "a.gif").seconds == pytest.approx(60 / fps, abs=0.011)


@pytest.mark.parametrize(
    ("suffix", "options"), [(".mkv", {}), (".mp4", {"movflags": "frag_keyframe+empty_moov"}), (".ts", {})]
)
@pytest.mark.parametrize(("frames", "most"), [(200, 30), (45, 30), (20, 30)])
def test_the_limit_of_training_frames_holds_without_a_count_in_the_header(
    tmp_path: Path, suffix: str, options: dict[str, str], frames: int, most: int
) -> None:
    ramp = torch.arange(frames)[:, None, None, None].expand(-1, 3, 16, 16).to(torch.uint8)
    encode(tmp_path / f"a{suffix}", ramp, options={"preset": "ultrafast"}, container_options=options)
    found = sample_frames([VideoFile(tmp_path / f"a{suffix}", "s")], (16, 16), most, False)
    assert min(frames, most // 2) <= len(found.frames) <= most
    # They are from the whole of it, evenly spread.
    levels = found.frames.float().mean((1, 2, 3))
    assert levels[0] < frames / len(levels) + 3
    assert levels[-1] > frames - 2 * frames / len(levels) - 3


def test_captions_go_to_the_frame_whose_time_is_nearest() -> None:
    times = torch.tensor([0.0, 0.1, 0.2, 10.0, 10.1], dtype=torch.float64)
    episode = TokenEpisode("a", "a", 0.5, torch.zeros(5, 1), None, times=times)
    seconds = [0.0, 0.04, 0.06, 0.14, 0.3, 5.0, 5.2, 10.04, 10.06]
    assert [episode.first_frame(s) for s in seconds] == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert episode.first_frame(12.0) == 5


def test_a_video_read_at_another_rate_says_that_rate(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", shades(6, 16, 16), 1 / 3600)
    with pytest.warns(FramepredWarning, match="each would be repeated 36,000 times"):
        clip = read_video(tmp_path / "a.mp4", fps=10.0)
    assert (len(clip.frames), clip.fps) == (6, pytest.approx(1 / 3600))
