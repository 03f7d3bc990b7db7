"""Video files ⇄ frames: exact, upright, on time, and clear about every file that is no video."""

import errno
import os
import shutil
import struct
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from media import encode, shades, write_audio, write_noise_mp4
from PIL import Image

from framepred.errors import FramepredError, FramepredWarning
from framepred.video.probe import probe_video
from framepred.video.read import read_video, stream_timed
from framepred.video.resize import fit_frames
from framepred.video.write import write_video


def noise(frames: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(
        0, 256, (frames, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("size", [(64, 64), (49, 65), (50, 34)])
def test_lossless_gives_every_pixel_back(tmp_path: Path, suffix: str, size: tuple[int, int]) -> None:
    frames = noise(9, *size)
    write_video(tmp_path / f"a{suffix}", frames, 12.0, lossless=True)
    clip = read_video(tmp_path / f"a{suffix}")
    assert torch.equal(clip.frames, frames)
    assert clip.frames.is_contiguous()
    assert clip.fps == pytest.approx(12.0)


def test_odd_sides_lose_at_most_one_row_and_column_in_plain_mp4(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", shades(5, 49, 65), 10.0)
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == (5, 3, 48, 64)
    assert (clip.frames.float() - shades(5, 49, 65)[:, :, :48, :64].float()).abs().mean() < 3


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_written_video_reads_back_with_its_frames_and_rate(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    write_video(path, iter(shades(7, 32, 48)), 10.0)
    clip = read_video(path)
    assert clip.frames.shape == (7, 3, 32, 48)
    assert clip.fps == pytest.approx(10.0, rel=0.01)
    assert (clip.frames.float() - shades(7, 32, 48).float()).abs().mean() < 4
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_webp_holds_every_frame_for_the_right_time(tmp_path: Path) -> None:
    write_video(tmp_path / "a.webp", shades(7, 32, 48), 10.0)
    with Image.open(tmp_path / "a.webp") as picture:
        assert (picture.n_frames, picture.size) == (7, (48, 32))
        durations = []
        for i in range(7):
            picture.seek(i)
            picture.load()
            durations.append(picture.info["duration"])
    assert durations == [100] * 7


@pytest.mark.parametrize("period", [4 / 3, 65_536, 86_400, 86_400 * 366])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_frames_that_last_for_days_are_written(tmp_path: Path, suffix: str, period: float) -> None:
    write_video(tmp_path / f"v{suffix}", noise(5, 32, 32), 1 / period, lossless=True)
    assert probe_video(tmp_path / f"v{suffix}").fps * period == pytest.approx(1)
    assert torch.equal(read_video(tmp_path / f"v{suffix}").frames, noise(5, 32, 32))


def test_variable_frame_rate_is_resampled_by_timestamp(tmp_path: Path) -> None:
    path = tmp_path / "vfr.mkv"
    times = [0.0, 0.1, 0.5, 0.6, 1.2]
    values = [20, 60, 100, 140, 180]
    frames = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 32, 32)
    encode(path, frames, codec="libx264rgb", pix_fmt="rgb24", times=times, options={"qp": "0"})
    shown = read_video(path, fps=10.0).frames[:, 0, 0, 0].tolist()
    expected = [
        next(v for t, v in zip(reversed(times), reversed(values), strict=True) if t <= k / 10 + 1e-6) for k in range(13)
    ]
    assert shown[:13] == expected
    assert read_video(path).frames[:, 0, 0, 0].tolist() == values


@pytest.mark.parametrize(("fps", "count"), [(5.0, 10), (10.0, 20), (30.0, 60), (7.5, 15)])
def test_resampling_keeps_the_length_in_seconds(tmp_path: Path, fps: float, count: int) -> None:
    write_video(tmp_path / "a.mp4", shades(20, 16, 16), 10.0, lossless=True)
    clip = read_video(tmp_path / "a.mp4", fps=fps)
    assert (len(clip.frames), clip.fps) == (count, fps)
    wanted = [int(k / fps * 10 + 1e-6) for k in range(count)]
    assert torch.equal(clip.frames, shades(20, 16, 16)[wanted])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_metadata_turns_the_picture_upright(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "phone.mp4"
    frames = noise(3, 32, 48)
    write_video(path, frames, 10.0, lossless=True)
    # A track header's matrix (a b u c d v x y w) maps (x, y) to (ax + cy, bx + dy), y downwards: turns clockwise.
    a, b, c, d = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}[turns]
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    header = data.index(b"tkhd")
    at = data.index(identity, header)
    path.write_bytes(data[:at] + turned + data[at + 36 :])
    upright = torch.rot90(frames, -turns, (2, 3))
    assert torch.equal(read_video(path).frames, upright)
    facts = probe_video(path)
    assert (facts.height, facts.width) == tuple(upright.shape[2:])


def test_resize_covers_then_crops_the_centre(tmp_path: Path) -> None:
    frames = torch.zeros(2, 3, 32, 96, dtype=torch.uint8)
    frames[:, 0, :, :32], frames[:, 1, :, 32:64], frames[:, 2, :, 64:] = 255, 255, 255
    write_video(tmp_path / "wide.mp4", frames, 10.0, lossless=True)
    square = read_video(tmp_path / "wide.mp4", size=16).frames
    assert square.shape == (2, 3, 16, 16)
    # Only the green middle third is left, at its own aspect; the edge column may mix with its neighbour.
    assert (square[:, 1, :, 1:-1] == 255).all()
    assert (square[:, [0, 2], :, 1:-1] == 0).all()
    tall = read_video(tmp_path / "wide.mp4", size=(64, 32)).frames
    assert tall.shape == (2, 3, 64, 32)
    assert (tall[:, 1, :, 4:-4] > 250).all()


@pytest.mark.parametrize("size", [(8, 8), (100, 30), (33, 77), (64, 64)])
def test_fit_frames_gives_exactly_the_size_asked_for(size: tuple[int, int]) -> None:
    fitted = fit_frames(noise(2, 49, 65), size)
    assert (fitted.shape, fitted.dtype) == ((2, 3, *size), torch.uint8)


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("libx264", "gray"), ("libx264", "yuv420p10le"), ("libx264", "yuvj420p"), ("ffv1", "gray16le"), ("ffv1", "bgra")],
)
def test_other_pixel_formats_read_as_rgb_uint8(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    grey = shades(4, 32, 32).float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)
    path = tmp_path / "a.mkv"
    encode(path, grey, codec=codec, pix_fmt=pix_fmt, options={"qp": "0"} if codec == "libx264" else {})
    clip = read_video(path)
    assert (clip.frames.shape, clip.frames.dtype) == ((4, 3, 32, 32), torch.uint8)
    assert (clip.frames.float() - grey.float()).abs().max() <= 4


def test_streaming_holds_at_most_a_chunk(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", shades(150, 16, 16), 10.0, lossless=True)
    chunks = [frames for frames, _ in stream_timed(tmp_path / "a.mp4")]
    assert [len(c) for c in chunks] == [64, 64, 22]
    assert torch.equal(torch.cat(chunks), shades(150, 16, 16))
    assert len(read_video(tmp_path / "a.mp4", max_frames=70).frames) == 70


def test_truncated_faststart_mp4_gives_its_start_and_warns(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    write_noise_mp4(whole, faststart=True)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.warns(FramepredWarning, match=r"cut\.mp4"):
        frames = read_video(cut).frames
    original = read_video(whole).frames
    assert 10 <= len(frames) < len(original)
    assert torch.equal(frames[:8], original[:8])


def test_whole_files_do_not_warn(tmp_path: Path) -> None:
    write_noise_mp4(tmp_path / "a.mp4", faststart=False)
    write_video(tmp_path / "b.gif", shades(5, 32, 32), 10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_video(tmp_path / "a.mp4")
        read_video(tmp_path / "b.gif")


def test_a_flipped_byte_in_the_middle_gives_frames_or_one_clear_error(tmp_path: Path) -> None:
    write_noise_mp4(tmp_path / "a.mp4", faststart=True)
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    generator = np.random.default_rng(0)
    for trial in range(20):
        broken = bytearray(data)
        for at in generator.integers(0, len(data), 40):
            broken[at] = int(generator.integers(256))
        path = tmp_path / f"{trial}.mp4"
        path.write_bytes(broken)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FramepredWarning)
            try:
                frames = read_video(path, size=64, max_frames=100).frames
                assert frames.dtype == torch.uint8
            except FramepredError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_cut_anywhere_a_file_gives_its_first_frames_or_one_clear_error(tmp_path: Path, suffix: str) -> None:
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write_video(whole, noise(6, 32, 32), 10.0)
    original, data = read_video(whole).frames, whole.read_bytes()
    for tenth in range(1, 40):
        path.write_bytes(data[: len(data) * tenth // 40])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FramepredWarning)
            try:
                frames = read_video(path).frames
            except FramepredError as error:
                assert str(path) in str(error)
                continue
        # The last one may be half a picture.
        assert torch.equal(frames[:-2], original[: len(frames)][:-2])


def _bad_file(kind: str, folder: Path) -> Path:
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is no video\n" * 200)
    elif kind == "random":
        path.write_bytes(np.random.default_rng(0).bytes(20_000))
    elif kind == "folder":
        path.mkdir()
    elif kind == "moovless":
        write_noise_mp4(folder / "whole.mp4", faststart=False)
        data = (folder / "whole.mp4").read_bytes()
        path.write_bytes(data[: len(data) * 6 // 10])
    elif kind == "aac":
        write_audio(path, "mp4", "aac")
    elif kind == "wav":
        write_audio(path, "wav", "pcm_s16le")
    elif kind == "header":
        write_noise_mp4(folder / "whole.mkv", faststart=False)
        data = (folder / "whole.mkv").read_bytes()
        path.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "does not exist"),
        ("empty", "empty"),
        ("text", "cannot read"),
        ("random", "cannot read"),
        ("folder", "folder"),
        ("moovless", "cannot read"),
        ("aac", "no video stream"),
        ("wav", "no video stream"),
        ("header", "cannot read|no frame"),
    ],
)
@pytest.mark.parametrize("reader", [read_video, probe_video, lambda path: list(stream_timed(path))])
def test_what_is_no_video_is_refused_in_one_line_that_names_it(tmp_path: Path, kind: str, says: str, reader) -> None:
    path = _bad_file(kind, tmp_path)
    with pytest.raises(FramepredError, match=says) as caught:
        reader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_text_is_not_read_as_terminal_art(tmp_path: Path) -> None:
    # FFmpeg's tty demuxer draws any .txt or .ans file as video.
    (tmp_path / "notes.txt").write_text("hello\n" * 100)
    with pytest.raises(FramepredError, match=r"notes\.txt"):
        read_video(tmp_path / "notes.txt")


def test_album_cover_does_not_make_a_song_a_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 32
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        picture = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        for stream, frame in ((cover, picture), (sound, silence)):
            container.mux(stream.encode(frame))
            container.mux(stream.encode())
    with pytest.raises(FramepredError, match="no video stream"):
        read_video(path)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan")])
def test_a_rate_that_is_no_rate_is_refused(clips_dir: Path, fps: float) -> None:
    with pytest.raises(FramepredError, match="fps"):
        read_video(clips_dir / "clip0.mp4", fps=fps)


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a.mkv"])
def test_no_frames_make_no_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(FramepredError, match="no frames"):
        write_video(tmp_path / name, [], 10.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.xyz", "a", "a.txt"])
def test_unknown_ending_is_refused_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(FramepredError, match=r"\.mp4"):
        write_video(tmp_path / name, shades(2, 16, 16), 10.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_a_failure_while_frames_are_made_leaves_the_old_file_alone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"old")

    def breaking():
        yield from shades(3, 16, 16)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_video(path, breaking(), 10.0)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".mp4", ".gif", ".webp"])
def test_no_space_is_a_clear_error_and_leaves_nothing(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(FramepredError, match="No space left"):
        write_video(tmp_path / f"a{suffix}", shades(3, 16, 16), 10.0)
    assert list(tmp_path.iterdir()) == []


def test_a_path_below_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(FramepredError, match=r"file\.txt"):
        write_video(tmp_path / "file.txt" / "a.mp4", shades(2, 16, 16), 10.0)


def test_names_with_spaces_and_other_letters_work(tmp_path: Path) -> None:
    path = tmp_path / "ein Bär %03d.mp4"
    write_video(path, shades(3, 16, 16), 10.0, lossless=True)
    assert torch.equal(read_video(path).frames, shades(3, 16, 16))
    shutil.move(path, tmp_path / "-dash.mp4")
    assert len(read_video(tmp_path / "-dash.mp4").frames) == 3


def test_a_colon_in_a_relative_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_video("12:30.mp4", shades(3, 16, 16), 10.0, lossless=True)
    assert torch.equal(read_video("12:30.mp4").frames, shades(3, 16, 16))


def test_fractional_rates_survive(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", shades(4, 16, 16), 30000 / 1001, lossless=True)
    assert read_video(tmp_path / "a.mp4").fps == pytest.approx(float(Fraction(30000, 1001)), rel=1e-6)
