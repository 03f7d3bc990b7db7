"""What is missing is said: frames that no error tells of, files that break off, times with holes."""

import re
import warnings
from pathlib import Path

import av
import pytest
import torch
from media import encode, packets_of, shades

from framepred.errors import FramepredError
from framepred.sources.folder import VideoFile
from framepred.video.probe import probe_video
from framepred.video.read import gather, stream_timed

HOLES = [0.0, 0.1, 0.2, 0.3, 0.4, 0.7, 1.4]
REORDERED = {"bf": "3", "b_strategy": "0", "crf": "10"}


def read(path: Path, whole: bool = False, most: int | None = None) -> tuple[torch.Tensor, list[float], str]:
    """Return frames, times and what is warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        frames, times = gather(stream_timed(path, chunk=2, whole=whole), most)
    return frames, times.tolist(), "; ".join(str(w.message) for w in said)


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def spoil(path: Path, number: int) -> None:
    """Make a packet one that brings no picture."""
    at, size = packets_of(path)[number]
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_holes_between_reordered_frames_are_seen_and_filled_where_a_rate_is_asked_for(
    tmp_path: Path, name: str
) -> None:
    encode(tmp_path / name, shades(7, 32, 32), options=REORDERED, times=HOLES)
    assert not probe_video(tmp_path / name).even
    frames, times, said = read(tmp_path / name, whole=True)
    assert len(frames) == 7 and times == pytest.approx(HOLES)
    assert "frames are not evenly spaced, some may be missing after frames 4, 5; actions are matched" in said
    episode = VideoFile(tmp_path / name, "s").read((32, 32), 10.0)
    wanted = [0, 1, 2, 3, 4, 4, 4, *[5] * 7, 6]
    assert [int((frames.float() - f.float()).abs().mean((1, 2, 3)).argmin()) for f in episode.frames] == wanted


@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.mkv", "a.ts", "a.h264", "a.flv", "a.wmv"])
def test_even_frames_in_any_order_are_even(tmp_path: Path, name: str) -> None:
    encode(tmp_path / name, shades(20, 32, 32), options=REORDERED)
    assert probe_video(tmp_path / name).even
    assert read(tmp_path / name)[2] == ""


def test_reordered_frames_with_the_times_of_their_decoding_are_all_there(tmp_path: Path) -> None:
    # As OpenCV writes them.
    encode(tmp_path / "a.mp4", shades(20, 32, 32), options=REORDERED)
    with av.open(tmp_path / "a.mp4") as source, av.open(tmp_path / "b.mp4", "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
            packet.pts = packet.dts = number * round(0.1 / packet.time_base)
            packet.stream = stream
            target.mux(packet)
    for whole in (False, True):
        frames, _, said = read(tmp_path / "b.mp4", whole)
        assert len(frames) == 20 and "missing near" not in said and "could be decoded" not in said
    spoil(tmp_path / "b.mp4", 19)
    assert "of 20 frames could be decoded" in read(tmp_path / "b.mp4")[2]


def test_ticks_of_an_avi_without_a_frame_are_holes_and_no_lost_frames(tmp_path: Path) -> None:
    encode(tmp_path / "a.avi", shades(8, 32, 32), "mpeg4", times=[0.0, 0.1, 0.2, 0.6, 0.7, 0.8, 1.5, 1.6])
    info = probe_video(tmp_path / "a.avi")
    frames, times, said = read(tmp_path / "a.avi", whole=True)
    assert (len(frames), info.num_frames, info.missing) == (8, 8, 0)
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.6, 0.7, 0.8, 1.5, 1.6])
    assert "missing after frames 2, 5; actions are matched by their order" in said


@pytest.mark.parametrize("number", [1, 5, 19])
def test_a_packet_that_brings_nothing_is_missed_where_it_was(tmp_path: Path, number: int) -> None:
    encode(tmp_path / "a.mkv", shades(20, 32, 32), "mjpeg", "yuvj420p")
    spoil(tmp_path / "a.mkv", number)
    frames, _, said = read(tmp_path / "a.mkv")
    assert len(frames) == 19 and f"missing near frame {number}" in said
    with pytest.raises(FramepredError, match=f"missing near frame {number}"):
        read(tmp_path / "a.mkv", whole=True)
    if number == 5:
        with pytest.raises(FramepredError, match="missing near frame 5"):
            read(tmp_path / "a.mkv", True, 8)


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.flv", "flv")])
def test_a_file_that_breaks_off_says_so(tmp_path: Path, name: str, codec: str) -> None:
    generator = torch.Generator().manual_seed(0)
    encode(tmp_path / name, torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=generator), codec)
    assert read(tmp_path / name)[2] == ""
    cut(tmp_path / name, 0.5)
    frames, times, said = read(tmp_path / name)
    assert 0 < len(frames) < 35
    found = re.search(r"it breaks off after ([\d.]+) of (4|3\.9\d*) s", said)
    assert found and float(found[1]) == pytest.approx(times[-1], abs=0.21)


def test_frames_that_a_recording_lost_on_the_way_are_said_without_actions_too(tmp_path: Path) -> None:
    encode(tmp_path / "a.ts", shades(24, 64, 64), options={"bf": "0", "g": "4"})
    data = bytearray((tmp_path / "a.ts").read_bytes())
    packets = [i for i in range(0, len(data), 188) if data[i + 1] & 0x40 and data[i + 1 : i + 3] == b"\x41\x00"]
    assert len(packets) == 24
    del data[packets[9] : packets[11]]
    (tmp_path / "a.ts").write_bytes(data)
    frames, _, said = read(tmp_path / "a.ts")
    assert len(frames) == 22 and "some may be missing after frame 8" in said
