"""Stores larger than memory: their tokens are those that were written, and what is drawn from does not stay."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from big_store import EPISODES, FRAMES, write_big_store

from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.tokens import mapped
from framepred.tokens.shards import shard_files
from framepred.tokens.store import TokenEpisode, read_store, read_store_info
from framepred.training.windows import Windows, step_generator


def draw(episodes: list[TokenEpisode], steps: int) -> Iterator[torch.Tensor]:
    layout = SequenceLayout(Vocabulary(0, 65536, 4), (8, 8), ActionSpace("discrete", ("move",), count=4))
    windows = Windows.build(episodes, ["s"] * len(episodes), layout, 8, 0.3)
    return (windows.batch(32, step_generator(0, step))[0] for step in range(steps))


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
        assert all(torch.equal(a.tokens, b.tokens) and b.tokens.dtype == torch.int32 for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(draw(held, 3), draw(episodes, 3), strict=True))
    (file,) = store.glob(".tokens-*.int32")
    assert file.stat().st_size == 4 * sum(e.tokens.numel() for e in held)
    # Once the store has changed, another file takes its place; the mapped one stays readable.
    os.utime(shard_files(store)[0], (1, 1))
    assert torch.equal(read_store(store)[-1].tokens, held[-1].tokens)
    assert not file.exists() and len(list(store.glob(".tokens-*.int32"))) == 1
    assert torch.equal(episodes[0].tokens, held[0].tokens)
    assert read_store_info(store).codebook_size == 65536


def resident() -> float:
    """Return the megabytes of memory that this process holds, pages of mapped files with them."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_does_not_grow_with_what_is_drawn(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", 1000)
    read_store(store)
    before = resident()
    episodes = read_store(store)
    for ids in draw(episodes, 300):
        assert ids.shape == (32, 8 * 65)
    grown = resident() - before
    tokens = 4e-6 * sum(e.tokens.numel() for e in episodes)
    assert tokens > 90
    # Times and actions are in memory: 16 bytes a frame; of 300 batches of 32 windows at most 4 stay.
    assert grown < 0.6 * tokens, f"{grown:.0f} MB for {tokens:.0f} MB of tokens"
