"""Tokenizing at scale: any number of processes and shards gives the same rows, and what dies takes little with it."""

import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import doubles
import pytest
import torch
from click.testing import CliRunner
from conftest import moving_square
from media import encode, shades
from torch import Tensor

from framepred.cli import cli
from framepred.errors import FramepredError, FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import find_videos
from framepred.tokens import tokenize as token_store
from framepred.tokens import workers as encoding
from framepred.tokens.store import read_store
from framepred.tokens.tokenize import TokenizeProgress, tokenize
from framepred.tokens.workers import Workers
from framepred.video.read import read_video
from framepred.video.write import write_video

Row = tuple[str, str, float, tuple[int, ...], tuple[int, ...] | None]


@pytest.fixture(scope="module")
def grey_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips, clip i of 8 + i frames as bright as 20 i, each other one with actions."""
    folder = tmp_path_factory.mktemp("grey")
    for i in range(6):
        write_video(folder / f"g{i}.mp4", torch.full((8 + i, 3, 16, 16), 20 * i, dtype=torch.uint8), 10.0, True)
        if i % 2:
            write_actions(folder / f"g{i}.actions.csv", torch.arange(8 + i) % 3, ["action"])
    return folder


def run(source: Path, out: Path, load: Any = doubles.Blocks, workers: int = 0, **more: Any) -> list[TokenizeProgress]:
    team = Workers(workers, load) if workers else None
    tokenizer = doubles.Blocks() if workers else load()
    return list(tokenize(find_videos([source]), out, tokenizer, "double", "a" * 64, workers=team, **more))


def rows(store: Path) -> set[Row]:
    episodes = read_store(store)
    made = {
        (e.name, e.source, e.fps, tuple(e.tokens.flatten().tolist()),
         None if e.actions is None else tuple(e.actions.tolist()))
        for e in episodes
    }  # fmt: skip
    assert len(made) == len(episodes)
    return made


def visible(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_workers_give_the_rows_of_one_process(grey_dir: Path, tmp_path: Path) -> None:
    run(grey_dir, tmp_path / "one")
    progress = run(grey_dir, tmp_path / "many", workers=3)
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    assert (progress[-1].done, progress[-1].frames, progress[-1].remaining) == (6, 63, 0)
    assert run(grey_dir, tmp_path / "many", workers=3) == []


@pytest.mark.parametrize("count", [2, 4, 9])
def test_shards_in_one_folder_give_the_rows_of_one_process(count: int, grey_dir: Path, tmp_path: Path) -> None:
    run(grey_dir, tmp_path / "one")
    parts = [run(grey_dir, tmp_path / "many", shard=(i, count)) for i in range(1, count + 1)]
    assert rows(tmp_path / "many") == rows(tmp_path / "one")
    sizes = [p[-1].total for p in parts if p]
    assert sum(sizes) == 6
    assert max(sizes) - min(sizes) <= 1
    # Whoever comes after, with other shards or none, finds nothing to do.
    assert run(grey_dir, tmp_path / "many") == []
    assert run(grey_dir, tmp_path / "many", shard=(2, 3)) == []


def test_shards_in_folders_of_their_own_are_opened_together(grey_dir: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    run(grey_dir, tmp_path / "one")
    for i in (1, 2, 3):
        run(grey_dir, tmp_path / "parts" / str(i), shard=(i, 3))
    files = [str(tmp_path / "parts" / "*" / "*.parquet")]
    opened = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    assert sorted(opened["episode"]) == [f"g{i}" for i in range(6)]
    assert {r[0] for r in rows(tmp_path / "one")} == set(opened["episode"])
    assert rows(tmp_path / "one") == set().union(*(rows(tmp_path / "parts" / str(i)) for i in (1, 2, 3)))


def test_a_store_of_shards_is_opened_as_it_is(grey_dir: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    for i in (1, 2):
        run(grey_dir, tmp_path / "store", shard=(i, 2))
    assert visible(tmp_path / "store") == ["episodes-1of2-00000.parquet", "episodes-2of2-00000.parquet",
                                           "framepred.json"]  # fmt: skip
    opened = load_dataset(str(tmp_path / "store"), split="train", cache_dir=str(tmp_path / "hf"))
    assert sorted(opened["episode"]) == [f"g{i}" for i in range(6)]


def test_another_shards_half_written_file_is_none_of_ours(grey_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / ".episodes-2of2-00000.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / "store" / ".framepred.json.episodes-2of2-00000.parquet.partial").write_text("{")
    run(grey_dir, tmp_path / "store", shard=(1, 2))
    assert len(read_store(tmp_path / "store")) == 3
    assert (tmp_path / "store" / ".episodes-2of2-00000.parquet.partial").exists()


def test_a_killed_worker_takes_only_its_video(grey_dir: Path, tmp_path: Path) -> None:
    source, fuse = tmp_path / "source", tmp_path / "fuse"
    source.mkdir()
    for i in range(4):
        frames = torch.full((8, 3, 16, 16), 255 if i == 1 else 20 * i, dtype=torch.uint8)
        write_video(source / f"v{i}.mp4", frames, 10.0, lossless=True)
    (source / "bad.mp4").write_text("no video")
    fuse.touch()
    with pytest.warns(FramepredWarning) as caught:
        progress = run(source, tmp_path / "store", partial(doubles.Deadly, fuse), workers=2)
    said = "\n".join(str(w.message) for w in caught)
    assert "v1.mp4 ended its worker (exit code -9; killed, or out of memory?)" in said
    assert "bad.mp4" in said
    assert (progress[-1].done, progress[-1].skipped) == (3, 2)
    assert visible(tmp_path / "store") == ["episodes-00000.parquet", "framepred.json"]
    fuse.unlink()
    with pytest.warns(FramepredWarning, match=r"bad\.mp4"):
        run(source, tmp_path / "store", partial(doubles.Deadly, fuse), workers=2)
    assert sorted(e.name for e in read_store(tmp_path / "store")) == ["v0", "v1", "v2", "v3"]


def test_workers_that_cannot_start_are_an_error(grey_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(FramepredError, match=r"a worker ended before its first video \(exit code 1\)"):
        run(grey_dir, tmp_path / "store", doubles.Broken, workers=2)
    assert not (tmp_path / "store").exists()


def test_workers_end_with_a_killed_parent(grey_dir: Path, tmp_path: Path) -> None:
    signs = tmp_path / "signs"
    signs.mkdir()
    program = f"""
import sys
import threading
sys.path[:0] = {[str(p) for p in Path(__file__).parents[:2]]!r}
import test_workers as t
from functools import partial
from pathlib import Path
t.run(Path({str(grey_dir)!r}), Path({str(tmp_path / "s")!r}), partial(t.doubles.Slow, Path({str(signs)!r})), workers=2)
"""
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as parent:
        deadline = time.monotonic() + 120
        while len(list(signs.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = [int(p.name) for p in signs.iterdir()]
        parent.kill()
    assert len(workers) == 2
    deadline = time.monotonic() + 60
    while any(map(_alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(_alive, workers))
    # But for the lock of the dead, which the next one takes.
    assert [name for name in visible(tmp_path / "s") if name != ".part-1of1.lock"] == []
    assert len(run(grey_dir, tmp_path / "s")) > 0


def _alive(pid: int) -> bool:
    try:
        # Nobody may be there to bury them.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_stopped_run_keeps_every_finished_video(grey_dir: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    run(grey_dir, whole)
    steps = tokenize(find_videos([grey_dir]), tmp_path / "s", doubles.Blocks(), "double", "a" * 64)
    while next(steps).done < 4:
        pass
    steps.close()
    assert len(rows(tmp_path / "s")) == 4
    rest = run(grey_dir, tmp_path / "s")
    assert rest[-1].frames == sum(8 + i for i in (4, 5))
    assert rows(tmp_path / "s") == rows(whole)


def test_an_interrupt_after_a_file_appeared_doubles_no_row(
    grey_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_store, "_FLUSH_TOKENS", 0)
    write = token_store._Files._write_file

    def interrupted(files: Any) -> None:
        write(files)
        monkeypatch.setattr(token_store._Files, "_write_file", write)
        raise KeyboardInterrupt

    monkeypatch.setattr(token_store._Files, "_write_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(grey_dir, tmp_path / "s")
    assert len(rows(tmp_path / "s")) == 1


def test_progress_tells_the_rate_and_the_time_left(grey_dir: Path, tmp_path: Path) -> None:
    made = run(grey_dir, tmp_path / "s")
    assert all(p.rate > 0 for p in made)
    assert made[-1].remaining == pytest.approx(0, abs=1e-6)
    assert [p.frames for p in made] == sorted(p.frames for p in made)
    meter = token_store._Meter([100, 300])
    meter.began -= 10
    meter.note(token_store.News(1, frames=50, share=1 / 3))
    halfway = meter.progress("v", 0, 2, 0)
    # A quarter of the bytes took ten seconds.
    assert halfway.remaining == pytest.approx(30, rel=0.01)
    assert halfway.rate == pytest.approx(5, rel=0.01)


def test_a_broken_actions_file_stops_only_its_video(grey_dir: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    frames, actions = moving_square(0, 8)
    for name in ("a", "b"):
        write_video(source / f"{name}.mp4", frames, 10.0, lossless=True)
        write_actions(source / f"{name}.actions.csv", actions, ["action"])
    (source / "a.actions.csv").write_text("action\n1x\n")
    with pytest.warns(FramepredWarning, match=r"skipped: actions file .*a\.actions\.csv, line 2: '1x'"):
        run(source, tmp_path / "s")
    assert [e.name for e in read_store(tmp_path / "s")] == ["b"]


# What videos can be made of.


def _alpha(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("png", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgba"
        for picture in shades(6, 48, 64):
            rgba = torch.cat([picture, torch.full((1, 48, 64), 128, dtype=torch.uint8)])
            frame = av.VideoFrame.from_ndarray(rgba.permute(1, 2, 0).contiguous().numpy(), format="rgba")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("grey.mkv", lambda p: encode(p, shades(6, 48, 64), "ffv1", "gray")),
        ("deep.mkv", lambda p: encode(p, shades(6, 48, 64), "ffv1", "yuv420p10le")),
        ("deepest.mkv", lambda p: encode(p, shades(6, 48, 64), "ffv1", "gray16le")),
        ("alpha.mov", _alpha),
        ("odd.mkv", lambda p: encode(p, shades(6, 47, 65), "ffv1", "bgr0")),
        ("thin.mkv", lambda p: encode(p, shades(6, 3, 201), "ffv1", "yuv444p")),
    ],
)
def test_any_kind_of_picture_is_tokenized(name: str, make: Any, tiny_run: Path, tmp_path: Path) -> None:
    make(tmp_path / name)
    made = CliRunner().invoke(
        cli, ["tokenize", str(tmp_path / name), "-o", str(tmp_path / "s"), "--tokenizer", str(tiny_run)]
    )
    assert made.exit_code == 0, made.output
    (episode,) = read_store(tmp_path / "s")
    assert episode.tokens.shape == (6, 8, 8)
    frames = read_video(tmp_path / name).frames
    if name.startswith(("grey", "deepest")):
        assert int((frames.int().amax(1) - frames.int().amin(1)).max()) <= 2
    elif name != "thin.mkv":
        assert int((frames.int() - shades(6, *frames.shape[-2:]).int()).abs().float().mean()) < 6


# The command.


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_the_command_with_workers_and_shards_gives_the_tokens_of_one_process(
    clips_dir: Path, tiny_run: Path, tmp_path: Path
) -> None:
    common = ("tokenize", clips_dir, "--tokenizer", tiny_run, "-o")
    one = invoke(*common, tmp_path / "one")
    assert one.exit_code == 0, one.output
    assert "5 episodes, 120 frames added, 64 tokens a frame, " in one.stdout
    assert one.stdout.rstrip().endswith(" frames/s")
    for i in (1, 2):
        made = invoke(*common, tmp_path / "many", "--shard", f"{i}/2", *(("--workers", 2) if i == 1 else ()))
        assert made.exit_code == 0, made.output
    assert rows(tmp_path / "many") == rows(tmp_path / "one")


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2"])
def test_a_shard_that_is_none_is_wrong_usage(shard: str, clips_dir: Path, tmp_path: Path) -> None:
    made = invoke("tokenize", clips_dir, "-o", tmp_path / "s", "--shard", shard)
    assert made.exit_code == 2
    assert "give i/n, from 1/n to n/n" in made.output


def test_a_size_that_the_tokenizer_does_not_take_is_refused(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    made = invoke("tokenize", clips_dir, "-o", tmp_path / "s", "--tokenizer", tiny_run, "--size", "32x64")
    assert made.exit_code == 1
    assert "takes frames of 64x64, not 32x64: leave --size out" in made.output


def test_an_interrupt_says_how_to_go_on(
    grey_dir: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = token_store.encode_here

    def stopped(*arguments: Any) -> Iterator[Any]:
        for item in real(*arguments):
            if item.index == 2:
                raise KeyboardInterrupt
            yield item

    monkeypatch.setattr(token_store, "encode_here", stopped)
    made = invoke("tokenize", grey_dir, "-o", tmp_path / "s", "--tokenizer", tiny_run)
    assert made.exit_code == 1
    assert "stopped; 2 episodes saved in" in made.output
    assert "give the same command again to go on" in made.output
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_store(tmp_path / "s")) == 2


def test_the_next_frames_are_decoded_while_the_last_are_encoded() -> None:
    second_asked_for = threading.Event()

    def chunks() -> Iterator[Tensor]:
        yield torch.zeros(1)
        second_asked_for.set()
        yield torch.ones(1)
        raise FramepredError("the third is broken")

    ahead = encoding._ahead(chunks())
    assert float(next(ahead)) == 0
    assert second_asked_for.wait(30), "nobody asked while the first was in use"
    assert float(next(ahead)) == 1
    with pytest.raises(FramepredError, match="the third is broken"):
        next(ahead)
