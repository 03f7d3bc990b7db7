"""Clocks of real files: what containers do to times, read back as the frames that were written, each once."""

import warnings
from pathlib import Path

import av
import pytest
import torch
from media import encode

from framepred.errors import FramepredWarning
from framepred.video.probe import probe_video
from framepred.video.read import gather, stream_timed
from framepred.video.write import write_video


def numbered(first: int, count: int) -> torch.Tensor:
    """Return frames (T, 3, 32, 32) that are as bright as their number."""
    levels = (torch.arange(first, first + count) * 3 + 20).to(torch.uint8)
    return levels[:, None, None, None].expand(-1, 3, 32, 32).contiguous()


def numbers(frames: torch.Tensor) -> list[int]:
    return [round((float(f.float().mean()) - 20) / 3) for f in frames]


def mpeg(path: Path, frames: torch.Tensor, fps: int = 25) -> bytes:
    with av.open(str(path), "w") as container:
        codec = "mpeg1video" if path.suffix == ".mpg" else "libx264"
        stream = container.add_stream(codec, rate=fps, options={"bf": "0"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = frame.permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".mpg", ".ts"])
@pytest.mark.parametrize("parts", [(20, 20), (7, 30), (12, 9, 15)])
def test_recordings_joined_end_to_end_go_on(tmp_path: Path, suffix: str, parts: tuple[int, ...]) -> None:
    data, first = b"", 0
    for i, count in enumerate(parts):
        data += mpeg(tmp_path / f"{i}{suffix}", numbered(first, count))
        first += count
    path = tmp_path / f"joined{suffix}"
    path.write_bytes(data)
    with pytest.warns(FramepredWarning, match=rf"joined{suffix}: the clock starts over at frames? {parts[0]}"):
        frames, times = gather(stream_timed(path))
    assert numbers(frames) == list(range(first))
    assert times.tolist() == pytest.approx([k / 25 for k in range(first)], abs=1e-3)
    with pytest.warns(FramepredWarning):
        frames, _ = gather(stream_timed(path, fps=5.0))
    assert numbers(frames) == list(range(0, first, 5))


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.mp4", "a.h264"])
def test_frames_coded_out_of_order_come_in_order_and_once(tmp_path: Path, name: str) -> None:
    frames = numbered(0, 24)
    with av.open(str(tmp_path / name), "w") as container:
        options = {"bf": "3", "x264-params": "b-adapt=0", "qp": "4"}
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            picture = frame.permute(1, 2, 0).contiguous().numpy()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe_video(tmp_path / name).fps == pytest.approx(10)
        for fps in (None, 10.0, 5.0):
            made, times = gather(stream_timed(tmp_path / name, fps=fps))
            step = 2 if fps == 5.0 else 1
            assert numbers(made) == list(range(0, 24, step))
            assert times.tolist() == pytest.approx([k / 10 for k in range(0, 24, step)], abs=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_fast_frames_then_stills_are_shown_for_as_long_as_they_stand(tmp_path: Path, suffix: str) -> None:
    times = [k / 50 for k in range(20)] + [0.4, 6.4, 16.4]
    path = tmp_path / f"a{suffix}"
    encode(path, numbered(0, 23), times=times, options={"bf": "0", "qp": "4"}, last=2.0)
    assert not probe_video(path).even
    frames, _ = gather(stream_timed(path, fps=10.0))
    shown = [max(i for i, t in enumerate(times) if t <= k / 10 + 1e-6) for k in range(164)]
    assert numbers(frames)[:164] == shown
    assert set(numbers(frames)[164:]) == {22}


def test_a_gap_of_a_day_is_true_and_not_filled(tmp_path: Path) -> None:
    times = [k / 10 for k in range(10)] + [86400 + k / 10 for k in range(10)]
    encode(tmp_path / "a.mkv", numbered(0, 20), times=times, options={"bf": "0", "qp": "4"})
    _, own = gather(stream_timed(tmp_path / "a.mkv"))
    assert own.tolist() == pytest.approx(times, abs=1e-3)
    with pytest.warns(FramepredWarning, match=r"a picture is shown for 86,399 s, too long to repeat"):
        frames, _ = gather(stream_timed(tmp_path / "a.mkv", fps=10.0))
    assert numbers(frames) == list(range(20))


def test_the_first_frames_of_a_long_video_are_read_without_the_rest(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", numbered(0, 60), 10.0)
    frames, times = gather(stream_timed(tmp_path / "a.mp4", chunk=8), 16)
    assert numbers(frames) == list(range(16))
    assert len(times) == 16
