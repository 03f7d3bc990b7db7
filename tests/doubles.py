"""Tokenizers that worker processes can load: instant, exact, and some of them deadly."""

import os
import signal
import time
from pathlib import Path

from torch import Tensor

from framepred.tokenizer.contract import FrameByFrame


class Blocks(FrameByFrame):
    """A token is the mean of a frame of 16x16."""

    codebook_size = 256
    grid = (1, 1)
    frame_size = (16, 16)

    def encode(self, frames: Tensor) -> Tensor:
        return frames.float().mean((1, 2, 3)).long().view(-1, 1, 1)


class Deadly(Blocks):
    """Kills its process at a frame as bright as that, while `fuse` exists."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def encode(self, frames: Tensor) -> Tensor:
        tokens = super().encode(frames)
        if int(tokens.max()) >= 250 and self.fuse.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return tokens


class Slow(Blocks):
    """Leaves a file named by its process where it works, and takes three seconds for a chunk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, frames: Tensor) -> Tensor:
        (self.folder / str(os.getpid())).touch()
        time.sleep(3)
        return super().encode(frames)


class Broken(Blocks):
    """Cannot be loaded."""

    def __init__(self) -> None:
        raise RuntimeError("no such weights")
