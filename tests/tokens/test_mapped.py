"""Stores larger than memory: their tokens are those that were written, and what is drawn from does not stay."""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from big_store import EPISODES, FRAMES, write_big_store

from framepred.errors import FramepredError
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokens import mapped
from framepred.tokens.shards import shard_files
from framepred.tokens.store import (
    StoreInfo,
    TokenEpisode,
    read_store,
    read_store_info,
    store_schema,
    write_store_info,
)
from framepred.training.windows import Windows, step_generator


def draw(episodes: list[TokenEpisode], steps: int) -> Iterator[torch.Tensor]:
    layout = SequenceLayout(Vocabulary(0, 65536, 4), (8, 8), ActionSpace("discrete", ("move",), count=4))
    windows = Windows.build(episodes, ["s"] * len(episodes), layout, 8, 0.3)
    return (windows.batch(32, step_generator(0, step))[0] for step in range(steps))


def same(a: TokenEpisode, b: TokenEpisode) -> bool:
    """Say whether two episodes have the same tokens, actions and times."""
    pairs = ((a.tokens, b.tokens), (a.actions, b.actions), (a.times, b.times))
    return all(x is y is None or (x.dtype == y.dtype and torch.equal(x, y)) for x, y in pairs)


LENGTHS = (5, 1, 3, 2)


def odd_actions(kind: str | None, number: int) -> list[Any] | None:
    """Return the actions of an episode: of all frames, of all but the last, or None."""
    count = None if kind is None or number == 2 else LENGTHS[number] - number % 2
    if count is None:
        return None
    return [number + t if kind == "discrete" else [number + t / 4, -t / 8] for t in range(count)]


def write_odd_store(store: Path, kind: str | None, columns: int = 2) -> Path:
    """Write a store of two files, of grids of (1, 2) and times that are not even."""
    names = {"discrete": ("move",), "continuous": ("a", "b", "c")[:columns], None: ()}[kind]
    info = StoreInfo("t", "0" * 64, "t", 1000, (1, 2), 0, (0, 0), (8, 8), kind, names, fps=0.0)
    store.mkdir()
    write_store_info(store, "episodes", info)
    rows = [
        {
            "episode": f"e{n}", "source": f"e{n}", "fps": 7.0, "num_frames": length, "grid_height": 1, "grid_width": 2,
            "times": [t**1.5 / 7 for t in range(length)], "tokens": [n * 100 + i for i in range(length * 2)],
            "actions": odd_actions(kind, n), "captions": [], "content": f"c{n}", "key": f"k{n}",
        }
        for n, length in enumerate(LENGTHS)
    ]  # fmt: skip
    for number in range(2):
        table = pa.Table.from_pylist(rows[2 * number : 2 * number + 2], schema=store_schema(info))
        pq.write_table(table, store / f"episodes-{number}.parquet")
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 46 MB, whose tokens take 92 MB as they are trained on."""
    return write_big_store(tmp_path_factory.mktemp("big"), 45)


def test_mapped_tokens_are_those_in_memory(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = read_store(store)
    assert len(held) == EPISODES * 6 and held[0].tokens.shape == (FRAMES, 8, 8)
    assert not list(store.glob(".*"))
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    for _ in range(2):
        episodes = read_store(store)
        pairs = zip(held, episodes, strict=True)
        assert all(same(a, b) and b.tokens.dtype == torch.int32 for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(draw(held, 3), draw(episodes, 3), strict=True))
    (file,) = store.glob(".tokens-*.mapped")
    # Of a frame: 64 tokens of 4 bytes, an action and a time of 8; each of the three fills whole pages.
    frames = sum(len(e.tokens) for e in held)
    assert 0 <= file.stat().st_size - (4 * 64 + 8 + 8) * frames < 3 * mmap.PAGESIZE
    # Once the store has changed, another file takes its place; the mapped one stays readable.
    os.utime(shard_files(store)[0], (1, 1))
    assert torch.equal(read_store(store)[-1].tokens, held[-1].tokens)
    assert not file.exists() and len(list(store.glob(".tokens-*.mapped"))) == 1
    assert torch.equal(episodes[0].tokens, held[0].tokens)
    assert read_store_info(store).codebook_size == 65536


@pytest.mark.parametrize("kind", ["discrete", "continuous", None])
def test_all_that_frames_have_is_mapped_as_it_was_written(
    kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_odd_store(tmp_path / "s", kind)
    held = read_store(store)
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    episodes = read_store(store)
    assert len(list(store.glob(".tokens-*.mapped"))) == 1
    assert all(same(a, b) for a, b in zip(held, episodes, strict=True))
    for number, episode in enumerate(episodes):
        length, actions = LENGTHS[number], odd_actions(kind, number)
        assert episode.tokens.flatten().tolist() == [number * 100 + i for i in range(length * 2)]
        assert episode.times is not None and episode.times.tolist() == [t**1.5 / 7 for t in range(length)]
        assert (None if episode.actions is None else episode.actions.tolist()) == actions
        assert episode.actions is None or episode.actions.is_floating_point() == (kind == "continuous")


def test_actions_that_do_not_fit_their_names_are_refused(tmp_path: Path) -> None:
    store = write_odd_store(tmp_path / "s", "continuous", columns=3)
    with pytest.raises(
        FramepredError, match=r"episodes-0.parquet cannot be read \(an action has not 3 numbers\): delete it"
    ):
        read_store(store)


@pytest.mark.parametrize("most", [0, 1000])
@pytest.mark.parametrize("lengths", [(2,), (2, 2, 2)])
def test_a_store_that_changes_while_it_is_read_is_refused(
    most: int, lengths: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", most)
    (tmp_path / "episodes-0.parquet").touch()
    rows = [[np.zeros(length, np.int32), np.zeros(1)] for length in lengths]
    with pytest.raises(FramepredError, match="was changed while it was read"):
        mapped.joined([tmp_path / "episodes-0.parquet"], [(np.int32, 4), (np.float64, 2)], rows)
    assert not list(tmp_path.glob(".*"))


def resident(kind: str) -> float:
    """Return the megabytes of memory of a kind that this process holds: RssAnon is its own, RssFile of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1e3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_the_store_or_what_is_drawn(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    list(draw(read_store(store), 3))
    own, files = resident("RssAnon"), resident("RssFile")
    episodes = read_store(store)
    for ids in draw(episodes, 300):
        assert ids.shape == (32, 8 * 65)
    stored = 1e-6 * sum(4 * e.tokens.numel() + 16 * len(e.tokens) for e in episodes)
    assert stored > 97
    # What is kept of each frame, an action and a time with it, is mapped; the actions alone would be 3 MB.
    assert (grown := resident("RssAnon") - own) < 2, f"{grown:.1f} MB of its own for {stored:.0f} MB"
    # Of 300 batches of 32 windows at most 4 stay.
    assert (grown := resident("RssFile") - files) < 0.4 * stored, f"{grown:.0f} MB mapped of {stored:.0f} MB"
