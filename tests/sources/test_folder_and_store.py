"""Sources and the token store: what is found, what is stored, and what survives a second run or a crash."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import moving_square

from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions_csv import read_actions, write_actions
from framepred.sources.folder import VideoFile, find_videos
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokenizer.contract import FrameByFrame
from framepred.tokenizer.image import Autoencoder
from framepred.tokens import tokenize as token_store
from framepred.tokens.store import is_store, read_store, read_store_info
from framepred.tokens.tokenize import tokenize
from framepred.video.read import read_video
from framepred.video.write import write_video


class CountingTokenizer(FrameByFrame):
    """A tokenizer that thresholds 8x8 means: exact, instant, and it counts how much it is given at once."""

    codebook_size = 256
    grid = (2, 2)
    frame_size = (16, 16)

    def __init__(self, codebook_size: int = 256, fail_at: int = -1) -> None:
        self.codebook_size = codebook_size
        self.calls: list[int] = []
        self.fail_at = fail_at

    def encode(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> torch.Tensor:
        if len(self.calls) == self.fail_at:
            raise RuntimeError("killed")
        self.calls.append(len(frames))
        blocks = frames.float().mean(1).unflatten(2, (2, 8)).unflatten(1, (2, 8))
        return blocks.mean((2, 4)).long() * (self.codebook_size // 256)


def run(videos: Sequence[VideoFile], out: Path, tokenizer: object, sha: str = "a" * 64, **more: object) -> list:
    return list(tokenize(videos, out, tokenizer, "counting", sha, **more))


@pytest.fixture
def tokenizer(tiny_run: Path) -> Autoencoder:
    return load_tokenizer(tiny_run / "tokenizer")


@pytest.fixture
def flush_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_store, "_FLUSH_TOKENS", 0)


def _state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.glob("*.parquet")}


def test_a_folder_gives_its_videos_sorted_and_once(clips_dir: Path, tmp_path: Path) -> None:
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    for name in ("z.mp4", "y.MKV", ".hidden.mp4", "notes.txt"):
        shutil.copy(clips_dir / "clip0.mp4", deep / name)
    found = find_videos([tmp_path, deep / "z.mp4"])
    assert [v.path.name for v in found] == ["y.MKV", "z.mp4"]
    assert {v.source for v in found} == {str(tmp_path)}


def test_linked_folders_are_followed_and_loops_end(clips_dir: Path, tmp_path: Path) -> None:
    real, source = tmp_path / "real", tmp_path / "source"
    (real / "deep").mkdir(parents=True)
    source.mkdir()
    shutil.copy(clips_dir / "clip0.mp4", real / "a.mp4")
    shutil.copy(clips_dir / "clip1.mp4", real / "deep" / "b.mp4")
    (source / "link").symlink_to(real)
    (real / "deep" / "up").symlink_to(real)
    (real / "deep" / "self").symlink_to(real / "deep")
    (real / "home").symlink_to(source)
    (source / "gone").symlink_to(tmp_path / "nowhere")
    assert [str(v.path.relative_to(source)) for v in find_videos([source])] == ["link/a.mp4", "link/deep/b.mp4"]
    (source / "again").symlink_to(real)
    assert len(find_videos([source])) == 2
    assert len(find_videos([source / "link"])) == 2


def test_sources_without_video_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FramepredError, match="does not exist"):
        find_videos([tmp_path / "none"])
    with pytest.raises(FramepredError, match="holds no video"):
        find_videos([tmp_path])


def test_a_video_with_actions_keeps_its_own_frames(clips_dir: Path, tmp_path: Path) -> None:
    (with_actions, *_) = find_videos([clips_dir])
    assert len(with_actions.read((64, 64), fps=5.0).frames) == 24
    shutil.copy(with_actions.path, tmp_path / "bare.mp4")
    (bare,) = find_videos([tmp_path])
    assert bare.actions() is None
    assert len(bare.read((64, 64), fps=5.0).frames) == 12


def test_a_video_is_resampled_where_it_has_no_actions_and_another_rate(clips_dir: Path, tmp_path: Path) -> None:
    (with_actions, *_) = find_videos([clips_dir])
    shutil.copy(with_actions.path, tmp_path / "bare.mp4")
    (bare,) = find_videos([tmp_path])
    assert with_actions.resampled_to(5.0) is None
    assert bare.resampled_to(None) is bare.resampled_to(10.0) is None
    # Two per cent off is the same rate: 29.97 and 30.
    assert bare.resampled_to(9.82) is bare.resampled_to(10.18) is None
    assert (bare.resampled_to(9.7), bare.resampled_to(10.3)) == (9.7, 10.3)
    assert torch.equal(torch.cat(list(bare.stream((64, 64), 9.82))), bare.read((64, 64)).frames)


def test_datasets_opens_the_store_and_the_tokens_are_the_encoded_frames(
    clips_dir: Path, tokenizer: Autoencoder, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha = tokenizer_sha256(tiny_run / "tokenizer")
    run(find_videos([clips_dir]), tmp_path / "store", tokenizer, sha, where=str(tiny_run / "tokenizer"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    from datasets import load_dataset

    rows = load_dataset(str(tmp_path / "store"), split="train", cache_dir=str(tmp_path / "hf"))
    columns = ["episode", "source", "fps", "num_frames", "times", "grid_height", "grid_width", "tokens", "actions"]
    assert rows.column_names == [*columns, "captions", "content", "key"]
    assert rows.features["tokens"].feature.dtype == "uint16"
    assert sorted(rows["episode"]) == [f"clip{i}" for i in range(5)]
    for row in rows:
        assert (row["num_frames"], row["fps"], len(row["actions"])) == (24, 10.0, 24)
        frames = read_video(row["source"], tokenizer.frame_size).frames
        stored = torch.tensor(row["tokens"]).view(row["num_frames"], row["grid_height"], row["grid_width"])
        assert torch.equal(stored, tokenizer.encode(frames))
        assert row["actions"] == read_actions(Path(row["source"]).with_suffix(".actions.csv"))[0].tolist()


def test_read_store_gives_back_what_was_stored(clips_dir: Path, tmp_path: Path) -> None:
    videos = find_videos([clips_dir])
    run(videos, tmp_path / "s", CountingTokenizer(), where="/somewhere")
    episodes = read_store(tmp_path / "s")
    assert [e.name for e in episodes] == [v.name for v in videos]
    for episode, video in zip(episodes, videos, strict=True):
        frames = read_video(video.path, (16, 16)).frames
        assert episode.tokens.dtype == torch.int32
        assert torch.equal(episode.tokens.long(), CountingTokenizer().encode(frames))
        actions, _ = video.actions()
        assert torch.equal(episode.actions, actions)
    info = read_store_info(tmp_path / "s")
    assert (info.tokenizer, info.tokenizer_sha256, info.tokenizer_path) == ("counting", "a" * 64, "/somewhere")
    assert (info.action_kind, info.action_names, info.frame_size) == ("discrete", ("action",), (16, 16))
    assert is_store(tmp_path / "s")
    assert not is_store(clips_dir)


def test_large_codebooks_are_stored_whole(clips_dir: Path, tmp_path: Path) -> None:
    run(find_videos([clips_dir])[:1], tmp_path / "s", CountingTokenizer(256 * 4000))
    file = next((tmp_path / "s").glob("*.parquet"))
    assert pq.read_schema(file).field("tokens").type.value_type == pa.int32()
    (episode,) = read_store(tmp_path / "s")
    assert episode.tokens.max() > 65_535


def test_continuous_actions_keep_every_bit(tmp_path: Path) -> None:
    frames, _ = moving_square(0)
    actions = torch.randn(23, 3, generator=torch.Generator().manual_seed(0))
    write_video(tmp_path / "v" / "a.mp4", frames, 10.0, lossless=True)
    write_actions(tmp_path / "v" / "a.actions.csv", actions, ["x", "y", "z"])
    run(find_videos([tmp_path / "v"]), tmp_path / "s", CountingTokenizer())
    (episode,) = read_store(tmp_path / "s")
    assert torch.equal(episode.actions, actions)
    assert read_store_info(tmp_path / "s").action_names == ("x", "y", "z")


def test_actions_stand_in_the_order_that_the_tokenizer_knows(tmp_path: Path) -> None:
    write_video(tmp_path / "v" / "a.mp4", moving_square(0)[0], 10.0, lossless=True)
    write_actions(tmp_path / "v" / "a.actions.csv", torch.arange(48.0).view(24, 2), ["x", "y"])
    tokenizer = CountingTokenizer()
    tokenizer.action_names = ("y", "x")
    run(find_videos([tmp_path / "v"]), tmp_path / "s", tokenizer)
    assert read_store_info(tmp_path / "s").action_names == ("y", "x")
    assert torch.equal(read_store(tmp_path / "s")[0].actions, torch.arange(48.0).view(24, 2).flip(1))
    tokenizer.action_names = ("y", "z")
    with pytest.raises(FramepredError, match=r"knows actions \['y', 'z'\], these are \['x', 'y'\]"):
        run(find_videos([tmp_path / "v"]), tmp_path / "t", tokenizer)


def test_running_again_adds_only_what_is_missing(clips_dir: Path, tmp_path: Path) -> None:
    videos = find_videos([clips_dir])
    run(videos[:2], tmp_path / "s", CountingTokenizer())
    before = _state(tmp_path / "s")
    again = CountingTokenizer()
    assert run(videos[:2], tmp_path / "s", again) == []
    assert again.calls == []
    assert _state(tmp_path / "s") == before
    more = CountingTokenizer()
    progress = run(videos, tmp_path / "s", more)
    after = _state(tmp_path / "s")
    assert {k: after[k] for k in before} == before
    assert sum(more.calls) == 3 * 24
    assert (progress[-1].done, progress[-1].total, progress[-1].frames) == (5, 5, 72)
    assert sorted(e.name for e in read_store(tmp_path / "s")) == [v.name for v in videos]


@pytest.mark.usefixtures("flush_each")
def test_a_crash_leaves_a_readable_store_that_the_next_run_completes(clips_dir: Path, tmp_path: Path) -> None:
    videos = find_videos([clips_dir])
    with pytest.raises(RuntimeError, match="killed"):
        run(videos, tmp_path / "s", CountingTokenizer(fail_at=3))
    assert [e.name for e in read_store(tmp_path / "s")] == ["clip0", "clip1", "clip2"]
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        *(f"episodes-0000{i}.parquet" for i in range(3)),
        "framepred.json",
    ]
    rest = CountingTokenizer()
    run(videos, tmp_path / "s", rest)
    assert sum(rest.calls) == 2 * 24
    assert [e.name for e in read_store(tmp_path / "s")] == [v.name for v in videos]


@pytest.mark.usefixtures("flush_each")
def test_dropping_the_generator_midway_leaves_a_readable_store(clips_dir: Path, tmp_path: Path) -> None:
    steps = tokenize(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer(), "counting", "a" * 64)
    while next(steps).done < 2:
        pass
    steps.close()
    assert len(read_store(tmp_path / "s")) == 2


def test_a_killed_process_leaves_a_readable_store(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    program = f"""
import os, signal
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.tokens import tokenize as tokens
from framepred.sources.folder import find_videos
tokens._FLUSH_TOKENS = 0
real, seen = tokens.pq.write_table, []
def write_table(table, where, **more):
    real(table, where, **more)
    seen.append(where)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
tokens.pq.write_table = write_table
tokenizer = load_tokenizer({str(tiny_run / "tokenizer")!r})
list(tokens.tokenize(find_videos([{str(clips_dir)!r}]), {str(tmp_path / "s")!r}, tokenizer, "run", "a" * 64))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert done.returncode == -9, done.stderr
    assert len(read_store(tmp_path / "s")) == 2
    from datasets import load_dataset

    assert len(load_dataset(str(tmp_path / "s"), split="train", cache_dir=str(tmp_path / "hf"))) == 2
    progress = run(find_videos([clips_dir]), tmp_path / "s", load_tokenizer(tiny_run / "tokenizer"))
    assert progress[-1].frames == 3 * 24
    assert not list((tmp_path / "s").glob(".*partial"))


def test_tokens_of_another_tokenizer_are_not_mixed_in(clips_dir: Path, tmp_path: Path) -> None:
    run(find_videos([clips_dir])[:1], tmp_path / "s", CountingTokenizer())
    before = _state(tmp_path / "s")
    with pytest.raises(FramepredError, match=r"aaaaaaaaaaaa.*bbbbbbbbbbbb.*--overwrite"):
        run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer(), "b" * 64)
    assert _state(tmp_path / "s") == before


def test_frames_of_another_size_are_not_mixed_in(clips_dir: Path, tmp_path: Path) -> None:
    run(find_videos([clips_dir])[:1], tmp_path / "s", CountingTokenizer())
    larger = CountingTokenizer()
    larger.frame_size = (32, 32)
    with pytest.raises(FramepredError, match=r"is of frames of \(16, 16\), these are \(32, 32\): give another -o"):
        run(find_videos([clips_dir]), tmp_path / "s", larger)


def test_other_actions_are_not_mixed_in(clips_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(clips_dir / "clip0.mp4", other / "o.mp4")
    write_actions(other / "o.actions.csv", torch.zeros(24, 2), ["x", "y"])
    with pytest.raises(FramepredError, match=r"continuous.*discrete"):
        run(find_videos([clips_dir, other]), tmp_path / "s", CountingTokenizer())
    assert not (tmp_path / "s").exists()
    run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer())
    with pytest.raises(FramepredError, match=r"discrete.*continuous"):
        run(find_videos([other]), tmp_path / "s", CountingTokenizer())


def test_videos_with_and_without_actions_share_a_store(clips_dir: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(clips_dir / "clip1.mp4", bare / "b.mp4")
    for order in (
        ([bare], [clips_dir / "clip0.mp4"]),
        ([clips_dir / "clip0.mp4"], [bare]),
        ([bare, clips_dir / "clip0.mp4"],),
    ):
        out = tmp_path / f"s{len(list(tmp_path.iterdir()))}"
        for sources in order:
            run(find_videos(sources), out, CountingTokenizer())
        episodes = {e.name: e for e in read_store(out)}
        assert episodes["b"].actions is None
        assert len(episodes["clip0"].actions) == 24


def test_one_bad_file_among_several_is_skipped_with_a_warning(clips_dir: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "bad.mp4").write_text("no video")
    shutil.copy(clips_dir / "clip0.mp4", mixed / "good.mp4")
    shutil.copy(clips_dir / "clip1.mp4", mixed / "short.mp4")
    write_actions(mixed / "short.actions.csv", torch.zeros(5, dtype=torch.int64), ["action"])
    with pytest.warns(FramepredWarning) as caught:
        run(find_videos([mixed]), tmp_path / "s", CountingTokenizer())
    said = "\n".join(str(w.message) for w in caught)
    assert "bad.mp4" in said
    assert "short.actions.csv has 5 actions for 24 frames" in said
    assert [e.name for e in read_store(tmp_path / "s")] == ["good"]


def test_only_bad_files_are_an_error_and_leave_nothing(tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in ("a.mp4", "b.mp4"):
        (mixed / name).write_text(f"no video {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramepredWarning)
        with pytest.raises(FramepredError, match="none of the 2 videos"):
            run(find_videos([mixed]), tmp_path / "s", CountingTokenizer())
    with pytest.raises(FramepredError, match=r"a\.mp4"):
        run(find_videos([mixed / "a.mp4"]), tmp_path / "s", CountingTokenizer())
    assert not (tmp_path / "s").exists()


def test_a_long_video_is_never_held_whole(tmp_path: Path) -> None:
    def frames() -> Iterator[torch.Tensor]:
        for t in range(200):
            yield torch.full((3, 16, 16), t, dtype=torch.uint8)

    write_video(tmp_path / "v" / "long.mp4", frames(), 10.0, lossless=True)
    tokenizer = CountingTokenizer()
    run(find_videos([tmp_path / "v"]), tmp_path / "s", tokenizer)
    assert max(tokenizer.calls) <= 64
    (episode,) = read_store(tmp_path / "s")
    assert episode.tokens[:, 0, 0].tolist() == list(range(200))


def test_fps_resamples_and_is_stored(clips_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    shutil.copy(clips_dir / "clip0.mp4", tmp_path / "v" / "a.mp4")
    run(find_videos([tmp_path / "v"]), tmp_path / "s", CountingTokenizer(), fps=5.0)
    (episode,) = read_store(tmp_path / "s")
    assert (episode.fps, len(episode.tokens)) == (5.0, 12)


def test_a_damaged_shard_is_named(clips_dir: Path, tmp_path: Path) -> None:
    run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer())
    shard = tmp_path / "s" / "episodes-00000.parquet"
    data = shard.read_bytes()
    for broken in (data[: len(data) // 2], b"", b"PAR1" + os.urandom(200) + b"PAR1"):
        shard.write_bytes(broken)
        with pytest.raises(FramepredError, match=r"episodes-00000\.parquet.*delete it and tokenize again"):
            read_store(tmp_path / "s")
        with pytest.raises(FramepredError, match=r"episodes-00000\.parquet"):
            run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer())
    shard.unlink()
    run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer())
    assert len(read_store(tmp_path / "s")) == 5


STORE = {
    "kind": "tokens", "tokenizer": {"name": "n", "sha256": "0", "path": ""}, "codebook_size": 4, "grid": [2, 2],
    "context": {"codebook_size": 0, "grid": []}, "frame_size": [8, 8], "actions": {"kind": None, "names": []},
}  # fmt: skip


@pytest.mark.parametrize(
    "about", ["", "{}", "[]", "not json", '{"kind": "tokens"}', json.dumps(STORE), json.dumps(STORE | {"context": []})]
)
def test_a_folder_that_is_no_store_is_refused(tmp_path: Path, clips_dir: Path, about: str) -> None:
    (tmp_path / "framepred.json").write_text(about)
    with pytest.raises(FramepredError, match="no token store"):
        read_store(tmp_path)
    with pytest.raises(FramepredError, match="no token store"):
        run(find_videos([clips_dir]), tmp_path, CountingTokenizer())
    assert [p.name for p in tmp_path.iterdir()] == ["framepred.json"]


def test_a_full_disk_leaves_nothing_half_written(
    clips_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(find_videos([clips_dir])[:1], tmp_path / "s", CountingTokenizer())
    before = sorted(p.name for p in (tmp_path / "s").iterdir())

    def full(table: pa.Table, where: Path, **_: object) -> None:
        Path(where).write_bytes(b"PAR1")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_store.pq, "write_table", full)
    with pytest.raises(FramepredError, match="No space left on device"):
        run(find_videos([clips_dir]), tmp_path / "s", CountingTokenizer())
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == before
    assert len(read_store(tmp_path / "s")) == 1


def test_a_store_below_a_file_cannot_be_written(clips_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    for out in (tmp_path / "file.txt", tmp_path / "file.txt" / "s"):
        with pytest.raises(FramepredError, match="cannot write"):
            run(find_videos([clips_dir])[:1], out, CountingTokenizer())
    assert (tmp_path / "file.txt").read_text() == "x"
