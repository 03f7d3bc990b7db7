"""Episodes: names say which action is which, and times are the frames' own."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from media import encode, shades

from framepred.errors import FramepredError
from framepred.sources.actions import order_actions
from framepred.sources.actions_csv import write_actions
from framepred.sources.episode import Episode
from framepred.sources.folder import VideoFile, find_videos
from framepred.tokens.store import read_store, read_store_info
from framepred.tokens.tokenize import tokenize
from framepred.video.write import write_video

TIMES = [0.0, 0.1, 0.2, 0.7, 0.8, 1.5]


class Means:
    """A token is the mean of a frame."""

    codebook_size, context_codebook_size = 256, 0
    grid, context_grid, frame_size, past = (1, 1), (0, 0), (16, 16), 0

    def encode_stream(self, chunks, actions=None):
        return (chunk.float().mean((1, 2, 3)).long().view(-1, 1, 1) for chunk in chunks)


def video(folder: Path, name: str, actions: torch.Tensor | None = None, names: tuple[str, ...] = ()) -> VideoFile:
    folder.mkdir(exist_ok=True)
    write_video(folder / f"{name}.mp4", shades(6, 16, 16), 10.0, lossless=True)
    if actions is not None:
        write_actions(folder / f"{name}.actions.csv", actions, names)
    return VideoFile(folder / f"{name}.mp4", str(folder))


def test_order_actions_puts_columns_in_the_order_of_the_names() -> None:
    actions = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    ordered = order_actions(actions, ("gas", "brake", "steer"), ("steer", "gas", "brake"), "a.csv")
    assert ordered.tolist() == [[3.0, 1.0, 2.0], [6.0, 4.0, 5.0]]
    ids = torch.tensor([1, 0])
    assert order_actions(ids, ("move",), ("move",), "a.csv") is ids


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("gas", "wheel"), "a.csv has no action named 'steer': its columns are gas, wheel; give gas, steer"),
        (("gas", "steer", "horn"), "a.csv has an action 'horn' that is not known: its columns are gas, steer, horn"),
    ],
)
def test_order_actions_refuses_other_names_in_one_line(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(FramepredError, match=words):
        order_actions(torch.zeros(2, len(names)), names, ("gas", "steer"), "a.csv")


def test_a_discrete_column_of_another_name_is_refused(tmp_path: Path) -> None:
    file = video(tmp_path, "a", torch.arange(5), ("button",))
    assert file.ordered(("button",)).actions()[0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(FramepredError, match=r"a\.actions\.csv has no action named 'action': its columns are button"):
        file.ordered(("action",)).actions()


def test_an_episode_has_the_names_of_its_actions_and_the_times_of_its_frames(tmp_path: Path) -> None:
    file = video(tmp_path, "a", torch.tensor([[0.5, 1.5]] * 5), ("gas", "steer"))
    episode = file.ordered(("steer", "gas")).read((16, 16))
    assert episode.action_names == ("steer", "gas")
    assert episode.actions is not None and episode.actions[0].tolist() == [1.5, 0.5]
    assert torch.allclose(episode.times, torch.arange(6, dtype=torch.float64) / 10)
    assert (episode.name, episode.fps, len(episode.frames)) == ("a", 10.0, 6)
    assert len(file.read((16, 16), max_frames=3).actions) == 3


def test_an_episode_has_a_time_for_each_frame() -> None:
    with pytest.raises(FramepredError, match="a has 5 times for 6 frames"):
        Episode("a", shades(6, 16, 16), torch.arange(5.0), 10.0)


def test_times_of_a_variable_rate_are_the_frames_own_from_the_first(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", shades(6, 16, 16), times=[t + 2 for t in TIMES])
    file = VideoFile(tmp_path / "a.mkv", "a")
    assert file.read((16, 16)).times.tolist() == pytest.approx(TIMES, abs=2e-3)
    parts = [times for _, times in file.stream_timed((16, 16), None, chunk=4)]
    assert [len(p) for p in parts] == [4, 2]
    assert torch.cat(parts).tolist() == pytest.approx(TIMES, abs=2e-3)
    resampled = file.read((16, 16), 2.0).times
    assert resampled.tolist() == pytest.approx([k / 2 for k in range(len(resampled))])


def test_a_store_holds_times_and_captions_go_by_them(tmp_path: Path) -> None:
    encode(tmp_path / "a.mkv", shades(6, 16, 16), times=TIMES)
    (tmp_path / "a.captions.csv").write_text("start,end,text\n0.7,1.5,late\n")
    list(tokenize(find_videos([tmp_path / "a.mkv"]), tmp_path / "s", Means(), "t", "a" * 64))
    (episode,) = read_store(tmp_path / "s")
    assert episode.times is not None and episode.times.tolist() == pytest.approx(TIMES, abs=2e-3)
    (caption,) = episode.captions
    assert (episode.first_frame(caption.start), episode.first_frame(caption.end)) == (3, 5)


def test_a_store_without_times_counts_frames_evenly(tmp_path: Path) -> None:
    video(tmp_path / "v", "a")
    list(tokenize(find_videos([tmp_path / "v"]), tmp_path / "s", Means(), "t", "a" * 64))
    (timed,) = read_store(tmp_path / "s")
    (file,) = (tmp_path / "s").glob("*.parquet")
    table: pa.Table = pq.read_table(file)
    pq.write_table(table.drop_columns(["times"]), file)
    (bare,) = read_store(tmp_path / "s")
    assert bare.times is None
    for seconds in (0.0, 0.04, 0.06, 0.1, 0.24, 0.26, 0.5, 9.0):
        assert min(bare.first_frame(seconds), 6) == timed.first_frame(seconds)


def test_a_store_of_videos_whose_columns_differ_in_order_has_one_order(tmp_path: Path) -> None:
    video(tmp_path / "v", "a", torch.tensor([[1.0, 2.5]] * 5), ("gas", "steer"))
    video(tmp_path / "v", "b", torch.tensor([[2.5, 1.0]] * 4 + [[2.0, 3.0]]), ("steer", "gas"))
    list(tokenize(find_videos([tmp_path / "v"]), tmp_path / "s", Means(), "t", "a" * 64))
    video(tmp_path / "w", "c", torch.tensor([[2.5, 1.0]] * 4 + [[4.0, 5.0]]), ("steer", "gas"))
    list(tokenize(find_videos([tmp_path / "w"]), tmp_path / "s", Means(), "t", "a" * 64))
    assert read_store_info(tmp_path / "s").action_names == ("gas", "steer")
    assert [e.actions[0].tolist() for e in read_store(tmp_path / "s")] == [[1.0, 2.5]] * 3
    assert [e.actions[0].tolist() for e in read_store(tmp_path / "s", ("steer", "gas"))] == [[2.5, 1.0]] * 3
    with pytest.raises(FramepredError, match="has no action named 'brake'"):
        read_store(tmp_path / "s", ("brake", "gas"))
