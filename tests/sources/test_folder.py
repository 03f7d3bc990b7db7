"""What a folder's videos are: every ending that FFmpeg reads, and one bad thing never stops the others unsaid."""

import os
import warnings
from pathlib import Path

import av
import pytest
import torch
from media import encode, shades

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.folder import VideoFile, find_videos
from framepred.video.formats import video_suffixes
from framepred.video.write import write_video

# The ending, the codec that its format is mostly written with, and the side of a picture that it takes.
FORMATS = [
    (".ts", "mpeg2video", 32), (".m2ts", "libx264", 32), (".mts", "libx264", 32), (".vob", "mpeg2video", 32),
    (".mpg", "mpeg1video", 32), (".wmv", "wmv2", 32), (".asf", "msmpeg4", 32), (".flv", "flv", 32),
    (".3gp", "libx264", 32), (".3g2", "mpeg4", 32), (".ogv", "libvpx", 32), (".webm", "libvpx-vp9", 32),
    (".mxf", "mpeg2video", 32), (".nut", "ffv1", 32), (".avi", "mpeg4", 32), (".mov", "libx264", 32),
]  # fmt: skip


@pytest.mark.parametrize(("suffix", "codec", "side"), FORMATS)
def test_a_folder_is_read_whatever_the_format(tmp_path: Path, suffix: str, codec: str, side: int) -> None:
    rate = 25
    with av.open(str(tmp_path / f"a{suffix}"), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        for picture in shades(12, side, side):
            frame = av.VideoFrame.from_ndarray(picture.permute(1, 2, 0).contiguous().numpy(), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (video,) = find_videos([tmp_path])
        episode = video.read((side, side))
    assert episode.frames.shape == (12, 3, side, side)
    assert episode.times.tolist() == pytest.approx([k / rate for k in range(12)], abs=1.1e-3)
    assert episode.fps == pytest.approx(rate, rel=0.001)
    assert (episode.frames.float() - shades(12, side, side).float()).abs().mean() < 12


def test_no_ending_of_text_pictures_or_sound_is_a_videos() -> None:
    other = {".txt", ".png", ".jpg", ".jpeg", ".bmp", ".tif", ".csv", ".json", ".mp3", ".wav", ".flac", ".m4a", ".wma",
             ".nfo", ".srt", ".sub", ".py", ".npz", ".safetensors", ".parquet", ".m3u8", ".ico", ".avif"}  # fmt: skip
    assert not other & {*video_suffixes()}
    assert {".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".mpg", ".mpeg", ".gif", ".webp"} <= {*video_suffixes()}


def copies(folder: Path, *names: str | bytes) -> None:
    write_video(folder.parent / "one.mp4", shades(3, 16, 16), 10.0)
    data = (folder.parent / "one.mp4").read_bytes()
    for name in names:
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def test_names_that_are_not_utf8_are_left_out_and_shown(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    copies(folder, "a.mp4", b"b\xff.mp4", b"sub\xe9/c.mp4")
    with pytest.warns(
        FramepredWarning, match=r"2 video files below .* have a name that is not UTF-8, as .*b\\xff\.mp4"
    ):
        assert [v.path.name for v in find_videos([folder])] == ["a.mp4"]
    with pytest.raises(FramepredError, match=r"b\\xff\.mp4 is not UTF-8: rename it"):
        find_videos([folder / os.fsdecode(b"b\xff.mp4")])


@pytest.mark.parametrize("hidden", [".trash/b.mp4", "sub/.cache/deep/b.mp4", "._a.mp4"])
def test_what_is_hidden_is_left_out_and_said(tmp_path: Path, hidden: str) -> None:
    folder = tmp_path / ".data" / "v"
    copies(folder, "a.mp4", hidden)
    with pytest.warns(FramepredWarning, match=rf"1 video files below .* are hidden, as .*{hidden}: left out"):
        assert [v.path.name for v in find_videos([folder])] == ["a.mp4"]


def test_a_folder_that_cannot_be_read_is_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "v"
    copies(folder, "a.mp4", "locked/b.mp4", "z/c.mp4")
    scan = os.scandir

    def locked(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.warns(FramepredWarning, match=r"folder .*locked cannot be read \(Permission denied\)"):
        assert [v.path.name for v in find_videos([folder])] == ["a.mp4", "c.mp4"]


def test_captions_may_speak_of_the_time_that_a_last_picture_stands(tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.2, 0.3, 9.0]
    encode(tmp_path / "a.mp4", shades(5, 32, 32), times=times, options={"bf": "0"}, last=20.0)
    (tmp_path / "a.captions.csv").write_text("start,end,text\n12,28,still\n")
    file = VideoFile(tmp_path / "a.mp4", "a")
    assert file.info().seconds == pytest.approx(29.0, abs=0.1)
    assert not file.info().even
    (caption,) = file.captions(torch.tensor(times, dtype=torch.float64), 10.0)
    assert (caption.start, caption.end) == (12, 28)


def test_an_uneven_video_is_resampled_even_where_its_mean_rate_is_the_one_wanted(tmp_path: Path) -> None:
    times = [0.0, 0.02, 0.04, 0.06, 0.08, 1.0, 1.02, 1.04, 1.06, 1.08]
    encode(tmp_path / "a.mkv", shades(10, 32, 32), times=times, options={"bf": "0"})
    file = VideoFile(tmp_path / "a.mkv", "a")
    assert file.resampled_to(10.0) == 10.0
    made = file.read((32, 32), 10.0)
    assert made.times.tolist() == pytest.approx([k / 10 for k in range(len(made.times))])
    assert torch.equal(made.frames[1], file.read((32, 32)).frames[4])


@pytest.mark.parametrize("period", [60.0, 120.0, 3600.0])
def test_a_time_lapse_is_not_repeated_and_its_rate_is_true(tmp_path: Path, period: float) -> None:
    write_video(tmp_path / "a.mp4", shades(8, 32, 32), 1 / period)
    file = VideoFile(tmp_path / "a.mp4", "a")
    assert file.info().fps == pytest.approx(1 / period)
    assert file.resampled_to(10.0) is None
    with pytest.warns(FramepredWarning, match=f"a frame each {period:,.0f} s is not resampled to 10 frames a second"):
        assert sum(len(f) for f in file.stream((32, 32), 10.0)) == 8
    assert file.read((32, 32)).times.tolist() == pytest.approx([period * k for k in range(8)])


@pytest.mark.parametrize("name", ["b.actions.csv", "a.action.csv", "a.csv", "sub/a.captions.csv", "A.actions.csv"])
def test_a_table_of_no_video_is_said(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "v"
    copies(folder, "a.mp4")
    for file in ("a.actions.csv", name, ".hidden/c.csv"):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text("action\n0\n1\n2\n")
    with pytest.warns(
        FramepredWarning, match=rf"1 CSV files below .* belong to no video, as .*{name}: not read"
    ) as said:
        assert [v.path.name for v in find_videos([folder])] == ["a.mp4"]
    assert len(said) == 1
