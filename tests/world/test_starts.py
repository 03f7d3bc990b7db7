"""Where worlds begin: clips give their actions by name, and a rate that is not the run's is said."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from framepred.errors import FramepredError, FramepredWarning
from framepred.sequence.actions import ActionSpace
from framepred.sources.actions_csv import write_actions
from framepred.sources.episode import Episode
from framepred.video.read import Clip
from framepred.video.write import write_video
from framepred.world.starts import Starts

FRAMES = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
ROWS = torch.tensor([[t / 10, 100.0 + t] for t in range(6)])


def run_of(names: tuple[str, ...]) -> Any:
    """What `Starts` asks of a run."""
    space = ActionSpace("continuous", names, edges=((0.0,), (0.0,)))
    return SimpleNamespace(
        window=4, fps=10.0, tokenizer=SimpleNamespace(frame_size=(16, 16)), layout=SimpleNamespace(actions=space)
    )


def episode(names: tuple[str, ...], fps: float = 10.0) -> Episode:
    return Episode("e", FRAMES, torch.arange(6, dtype=torch.float64) / fps, fps, ROWS, names)


def drawn(run: Any, given: Any) -> torch.Tensor | None:
    return Starts(run, given).draw(np.random.default_rng(0), 4)[1]


def test_an_episodes_columns_go_by_their_names() -> None:
    straight = drawn(run_of(("steer", "gas")), episode(("steer", "gas")))
    swapped = drawn(run_of(("gas", "steer")), episode(("steer", "gas")))
    assert straight is not None and swapped is not None
    assert bool((straight[:, 1] >= 100).all())
    assert torch.equal(straight, swapped.flip(1))
    with pytest.raises(FramepredError, match="e has no action named 'brake': its columns are steer, gas"):
        drawn(run_of(("steer", "brake")), episode(("steer", "gas")))


def test_another_rate_is_said(tmp_path: Path) -> None:
    run = run_of(("steer", "gas"))
    write_video(tmp_path / "fast.mp4", FRAMES, 25.0, lossless=True)
    write_actions(tmp_path / "fast.actions.csv", ROWS, ["steer", "gas"])
    for given in (Clip(FRAMES, 25.0), episode(("steer", "gas"), 25.0), str(tmp_path / "fast.mp4")):
        with pytest.warns(FramepredWarning, match="has 25 frames a second.* its own frames are read"):
            drawn(run, given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(run, Clip(FRAMES, 10.1))
        drawn(run, episode(("steer", "gas")))
