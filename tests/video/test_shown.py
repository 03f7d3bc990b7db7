"""Pictures as a player shows them, and damage that costs its own frames only: said, never silent."""

import struct
import warnings
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
import pytest
import torch
from media import encode, lose_a_frame, packets_of, shades

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import VideoFile
from framepred.video.probe import probe_video
from framepred.video.read import read_video, stream_timed
from framepred.video.write import write_video

ONE = 1 << 16
AXES = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1), (0, 1, -1, 0), (0, -1, 1, 0), (0, 1, 1, 0),
        (0, -1, -1, 0)]  # fmt: skip


def silent(path: Path, **more) -> torch.Tensor:
    """Read a video that is in order: not a word may be said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_video(path, **more).frames


def with_matrix(path: Path, matrix: tuple[float, ...]) -> None:
    """Write (a, b, c, d) into the track header of an .mp4: the point (x, y) is shown at (ax + cy, bx + dy)."""
    data = path.read_bytes()
    a, b, c, d = (round(v * ONE) for v in matrix)
    at = data.index(struct.pack(">9i", ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), data.index(b"tkhd"))
    path.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :])


@pytest.mark.parametrize("matrix", AXES)
def test_every_turn_and_mirror_image_is_shown_where_the_matrix_says(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    path = tmp_path / "a.mp4"
    frames = torch.randint(0, 256, (2, 3, 6, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    write_video(path, frames, 10.0, lossless=True)
    with_matrix(path, matrix)
    a, b, c, d = matrix
    width, height = (10, 6) if a else (6, 10)
    shown = torch.empty(2, 3, height, width, dtype=torch.uint8)
    for y, x in product(range(6), range(10)):
        # A negative axis counts from the other side: -1 is the last.
        right, down = a * x + c * y, b * x + d * y
        shown[:, :, down - (b + d < 0), right - (a + c < 0)] = frames[:, :, y, x]
    assert torch.equal(silent(path), shown)
    assert (probe_video(path).width, probe_video(path).height) == (width, height)


def test_a_slanted_picture_is_turned_by_the_nearest_quarter_and_said(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, shades(2, 32, 48), 10.0, lossless=True)
    with_matrix(path, (0.1, 0.99, -0.99, 0.1))
    with pytest.warns(FramepredWarning, match=r"a\.mp4: it is to be shown at a slant"):
        assert torch.equal(read_video(path).frames, shades(2, 32, 48).rot90(-1, (2, 3)))


@pytest.mark.parametrize(("aspect", "size"), [((4, 3), (48, 85)), ((1, 2), (96, 64)), ((1, 1), (48, 64))])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixels_are_made_square(tmp_path: Path, aspect: tuple[int, int], size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    frames = torch.zeros(2, 3, 48, 64, dtype=torch.uint8)
    frames[..., :32] = 255
    encode(path, frames, aspect=Fraction(*aspect))
    shown = silent(path)
    assert shown.shape[2:] == size == (probe_video(path).height, probe_video(path).width)
    # The left half stays the left half.
    assert abs(float((shown > 128).float().mean()) - 0.5) < 0.02
    assert silent(path, size=16).shape[2:] == (16, 16)


@pytest.mark.parametrize("default", [0, 1])
def test_of_several_streams_the_default_one_is_read_and_said(tmp_path: Path, default: int) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        for i in range(2):
            stream = container.add_stream("ffv1", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16 * (i + 1), "bgr0"
            stream.disposition = av.stream.Disposition.default if i == default else av.stream.Disposition(0)
        for stream, value in zip(container.streams.video, (50, 200), strict=True):
            picture = torch.full((stream.height, 32, 3), value, dtype=torch.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture.numpy(), format="rgb24")))
            container.mux(stream.encode())
    with pytest.warns(FramepredWarning, match=f"2 video streams; number {default + 1} .32x{16 * (default + 1)}."):
        assert read_video(path).frames.unique().tolist() == [(50, 200)[default]]


@pytest.mark.parametrize(("first", "count"), [(3, 7), (0, 12), (7, 13)])
def test_a_trimmed_mp4_is_whole_and_begins_where_its_edit_list_says(tmp_path: Path, first: int, count: int) -> None:
    path = tmp_path / "a.mp4"
    encode(path, shades(20, 32, 32), codec="libx264rgb", pix_fmt="rgb24", options={"qp": "0"})
    whole = read_video(path).frames
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12
    start = struct.unpack_from(">i", data, at + 4)[0]
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    # The movie counts in milliseconds, the track in units of its own.
    struct.pack_into(">Ii", data, at, count * 100, start + first * scale // 10)
    path.write_bytes(data)
    assert torch.equal(silent(path), whole[first : first + count])
    assert probe_video(path).num_frames == count


@pytest.mark.parametrize(("codec", "suffix"), [("libx264", ".mp4"), ("libx264", ".mkv"), ("png", ".mov")])
@pytest.mark.parametrize("bad", [[4], [0], [11], [3, 4, 9]])
def test_a_bad_packet_loses_its_frame_and_not_the_rest(tmp_path: Path, codec: str, suffix: str, bad: list[int]) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = {"libx264": "yuv420p", "png": "rgb24"}[codec]
    encode(path, shades(12, 64, 64), codec, pixels, options={"g": "1", "bf": "0"} if codec == "libx264" else {})
    whole = read_video(path).frames
    data = bytearray(path.read_bytes())
    for at, size in (packets_of(path)[i] for i in bad):
        data[at : at + size] = b"\xff" * size
    path.write_bytes(data)
    with pytest.warns(FramepredWarning, match=r"missing near frame|11 of 12 frames"):
        frames = read_video(path).frames
    assert torch.equal(frames, whole[[i for i in range(12) if i not in bad]])
    with pytest.warns(FramepredWarning):
        times = torch.cat([t for _, t in stream_timed(path)])
    assert times[-1] - times[0] == pytest.approx((max(set(range(12)) - {*bad}) - min(set(range(12)) - {*bad})) / 10)


def test_frames_that_the_decoder_repaired_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    noise = torch.randint(0, 256, (10, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    encode(path, noise, options={"g": "1", "bf": "0"})
    at, size = packets_of(path)[6]
    data = bytearray(path.read_bytes())
    data[at + size // 2 : at + size // 2 + 40] = bytes(range(40))
    path.write_bytes(data)
    with pytest.warns(FramepredWarning, match=r"a\.mp4: damaged, the decoder made up parts of frame 6$"):
        assert len(read_video(path).frames) == 10


@pytest.mark.parametrize("rows", [11, 12])
def test_a_lost_frame_is_an_error_where_actions_belong_to_frames(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "a.avi"
    encode(path, shades(12, 32, 32), "mjpeg", "yuvj420p")
    lose_a_frame(path)
    file = VideoFile(path, "a")
    with pytest.warns(FramepredWarning, match=r"11 of 12 frames could be decoded"):
        assert len(file.read((32, 32)).frames) == 11
    write_actions(tmp_path / "a.actions.csv", torch.zeros(rows, dtype=torch.int64), ["action"])
    for most in (None, 8):
        with pytest.raises(
            FramepredError, match=r"a\.avi: 1 of 12 frames are missing, so its actions cannot be matched"
        ):
            file.read((32, 32), max_frames=most)


def test_a_hole_between_frames_that_have_actions_is_said(tmp_path: Path) -> None:
    times = [k / 10 for k in range(13) if k != 6]
    encode(tmp_path / "a.mkv", shades(12, 32, 32), times=times)
    file = VideoFile(tmp_path / "a.mkv", "a")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        file.read((32, 32))
    write_actions(tmp_path / "a.actions.csv", torch.zeros(12, dtype=torch.int64), ["action"])
    with pytest.warns(FramepredWarning, match=r"a\.mkv: frames are not evenly spaced, some may be missing"):
        file.read((32, 32))


def test_high_dynamic_range_and_interlacing_are_said(tmp_path: Path) -> None:
    encode(tmp_path / "hdr.mkv", shades(3, 32, 32), pix_fmt="yuv420p10le", transfer=16)
    with pytest.warns(FramepredWarning, match=r"hdr\.mkv: high dynamic range .PQ."):
        read_video(tmp_path / "hdr.mkv")
    encode(tmp_path / "i.mkv", shades(3, 64, 64), options={"x264-params": "tff=1"})
    with pytest.warns(FramepredWarning, match=r"i\.mkv: it is interlaced"):
        read_video(tmp_path / "i.mkv")


def test_frames_that_change_their_size_are_of_one_size_and_it_is_said(tmp_path: Path) -> None:
    for i, side in enumerate((32, 64)):
        encode(tmp_path / f"{i}.ts", shades(70, side, side), options={"bf": "0", "preset": "ultrafast"})
    path = tmp_path / "a.ts"
    path.write_bytes((tmp_path / "0.ts").read_bytes() + (tmp_path / "1.ts").read_bytes())
    with pytest.warns(FramepredWarning, match=r"a\.ts: frames change from 32x32 to 64x64 at frame 70"):
        assert read_video(path).frames.shape == (140, 3, 32, 32)


@pytest.mark.parametrize("text", ["ffconcat version 1.0\nfile a.mp4\n", "#EXTM3U\n#EXTINF:1,\na.mp4\n"])
def test_a_list_of_other_files_is_no_video(tmp_path: Path, text: str) -> None:
    write_video(tmp_path / "a.mp4", shades(2, 16, 16), 10.0)
    (tmp_path / "list.mp4").write_text(text)
    with pytest.raises(FramepredError, match=r"list\.mp4"):
        read_video(tmp_path / "list.mp4")
