"""Shared fixtures: a folder of tiny clips with actions, and a run trained on them in seconds."""

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

from framepred.config.recipe import Recipe, apply_settings, load_recipe
from framepred.errors import FramepredWarning
from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video

# What a shell starts in the background ignores Ctrl-C, and nohup a closed terminal: tests send both, and their children
# inherit what is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("framepred", deadline=None)
hypothesis.settings.load_profile("framepred")

FRAMES = 24
FPS = 10.0
MOVES = {0: (0, -4), 1: (0, 4), 2: (-4, 0), 3: (4, 0)}

TINY_SETTINGS = (
    "tokenizer.width=16",
    "tokenizer.levels=[4, 4, 4]",
    "tokenizer.batch_size=8",
    "predictor.width=32",
    "predictor.layers=2",
    "predictor.heads=2",
    "predictor.kv_heads=2",
    "predictor.mlp_width=64",
    "predictor.window=6",
    "predictor.batch_size=4",
    "training.tokenizer_steps=30",
    "training.predictor_steps=30",
    "training.validate_every=30",
    "training.validation_batches=1",
    "training.precision=fp32",
)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bitwise equality needs the same order of sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def moving_square(seed: int, frames: int = FRAMES) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames uint8 (T, 3, 64, 64) and actions int64 (T,): action t moves the square seen in frame t + 1."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.randint(0, 4, (frames,), generator=generator)
    row, column = (torch.randint(0, 16, (2,), generator=generator) * 4).tolist()
    pictures = torch.full((frames, 3, 64, 64), 30, dtype=torch.uint8)
    for t in range(frames):
        rows, columns = (torch.arange(16) + row) % 64, (torch.arange(16) + column) % 64
        pictures[t][:, rows[:, None], columns] = torch.tensor([250, 220, 40], dtype=torch.uint8)[:, None, None]
        down, right = MOVES[int(actions[t])]
        row, column = (row + down) % 64, (column + right) % 64
    return pictures, actions


def tiny_recipe() -> Recipe:
    """Return the built-in recipe `tiny`, shrunk until training takes seconds."""
    return apply_settings(load_recipe("tiny"), TINY_SETTINGS)


@pytest.fixture(scope="session", autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(min(2, int(os.environ["OMP_NUM_THREADS"])))


@pytest.fixture(scope="session")
def clips_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of five lossless 64x64 clips of 24 frames, each with a discrete actions file."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(5):
        frames, actions = moving_square(i)
        write_video(folder / f"clip{i}.mp4", frames, FPS, lossless=True)
        write_actions(folder / f"clip{i}.actions.csv", actions, ["action"])
    return folder


@pytest.fixture(scope="session")
def tiny_run(clips_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: tokenizer and predictor trained for 30 steps each on `clips_dir`."""
    from framepred.training.pipeline import Job, train

    out = tmp_path_factory.mktemp("run") / "tiny"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramepredWarning)
        for _ in train(Job([str(clips_dir)], out, tiny_recipe())):
            pass
    return out
