"""What a video gives to a run: actions of its own file fit its frames, by number and by name."""

from pathlib import Path

import pytest
import torch
from media import encode, lose_a_frame, packets_of, shades
from random_run import write_random_run

from framepred.errors import FramepredError, FramepredWarning
from framepred.evaluation.clips import Group, read_clips
from framepred.evaluation.forecast import make_forecast
from framepred.evaluation.protocol import Protocol
from framepred.sources.folder import VideoFile
from framepred.video.write import write_video
from framepred.world.footage import given_actions
from framepred.world.run import Run, load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_random_run(tmp_path_factory.mktemp("footage") / "run"))


@pytest.fixture(params=["clip.mp4", "clip.mkv"])
def clip(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    frames = torch.randint(0, 256, (20, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    write_video(tmp_path / request.param, frames, 10.0, lossless=True)
    return tmp_path / request.param


def rows(path: Path, count: int, header: str = "action") -> Path:
    path.write_text(f"{header}\n" + "1\n2\n" * (count // 2) + "0\n" * (count % 2))
    return path


@pytest.mark.parametrize("count", [17, 18, 21, 40])
def test_rows_that_do_not_fit_the_frames_are_refused_however_few_are_read(run: Run, clip: Path, count: int) -> None:
    file = rows(clip.with_suffix(".actions.csv"), count)
    says = rf"clip\.actions\.csv has {count} actions for 20 frames: give one row a frame, 19 or 20 rows"
    with pytest.raises(FramepredError, match=says):
        make_forecast(clip, str(run.path), context=2, horizon=2)
    with pytest.raises(FramepredError, match=says):
        make_forecast(clip, str(run.path), context=2, horizon=2, actions=str(file))
    video, protocol = VideoFile(clip, "s"), Protocol(context=2, horizon=2)
    with pytest.warns(UserWarning, match=says), pytest.raises(FramepredError, match="has no clip of 4 frames"):
        list(read_clips(Group("g", "s", (video,)), protocol, (32, 32), 10.0))
    with pytest.raises(FramepredError, match=says):
        video.read((8, 8), max_frames=5)


@pytest.mark.parametrize("count", [19, 20])
def test_a_row_for_each_frame_or_each_step_fits(run: Run, clip: Path, count: int) -> None:
    rows(clip.with_suffix(".actions.csv"), count)
    forecast = make_forecast(clip, str(run.path), context=2, horizon=2)
    assert forecast.actions is not None
    assert len(VideoFile(clip, "s").read((8, 8), max_frames=5).actions) == 5  # type: ignore[arg-type]


def test_another_file_may_go_on_beyond_the_video(run: Run, clip: Path) -> None:
    plan = rows(clip.with_name("plan.csv"), 40)
    forecast = make_forecast(clip, str(run.path), context=18, horizon=6, actions=str(plan))
    assert forecast.frames.shape[1] == 6
    with pytest.raises(FramepredError, match="rows, 42 are needed"):
        make_forecast(clip, str(run.path), context=18, horizon=25, actions=str(plan))


def test_actions_of_a_video_that_lost_a_frame_are_refused(run: Run, tmp_path: Path) -> None:
    video = tmp_path / "clip.avi"
    encode(video, shades(20, 32, 32), "mjpeg", "yuvj420p")
    plan = rows(tmp_path / "plan.csv", 19)
    assert given_actions(VideoFile(video, "s"), str(plan), run)
    lose_a_frame(video)
    with pytest.raises(FramepredError, match=r"clip\.avi lacks 1 of the frames .* so .*plan\.csv cannot be matched"):
        make_forecast(video, str(run.path), context=2, horizon=2, actions=str(plan))


def test_a_packet_that_cannot_be_decoded_is_an_error_where_actions_are_given_and_a_warning_where_none_are(
    run: Run, tmp_path: Path
) -> None:
    video, arrays = tmp_path / "clip.mkv", {"context": 2, "horizon": 8}
    encode(video, shades(20, 32, 32), "mjpeg", "yuvj420p")
    at, size = packets_of(video)[5]
    data = bytearray(video.read_bytes())
    data[at : at + size] = bytes(size)
    video.write_bytes(data)
    plan = rows(tmp_path / "plan.csv", 20)
    with pytest.raises(FramepredError, match="so its actions cannot be matched to its frames"):
        make_forecast(video, str(run.path), actions=str(plan), **arrays)
    for own in (False, True):
        if own:
            rows(video.with_suffix(".actions.csv"), 20)
            with pytest.raises(FramepredError, match="so its actions cannot be matched to its frames"):
                make_forecast(video, str(run.path), **arrays)
        with pytest.warns(FramepredWarning, match="missing near frame 5"):
            assert make_forecast(video, str(run.path), actions="none", **arrays).actions is None


def test_actions_of_another_name_are_refused(run: Run, clip: Path) -> None:
    rows(clip.with_suffix(".actions.csv"), 20, "buttons")
    with pytest.raises(FramepredError, match="no action named 'action': its columns are buttons; give action"):
        given_actions(VideoFile(clip, "s"), None, run)
