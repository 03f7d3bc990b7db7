"""Tokenizers that worker processes can load: instant, exact, and some of them deadly."""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from framepred.tokenizer.contract import FrameByFrame


class Blocks(FrameByFrame):
    """A token is the mean of a frame of 16x16."""

    codebook_size = 256
    grid = (1, 1)
    frame_size = (16, 16)

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        return frames.float().mean((1, 2, 3)).long().view(-1, 1, 1)


class Deadly(Blocks):
    """Kills its process at a frame as bright as that, while `fuse` exists."""

    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        tokens = super().encode(frames)
        if int(tokens.max()) >= 250 and self.fuse.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return tokens


class Slow(Blocks):
    """Leaves a file named by its process where it works, and takes three seconds for a chunk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        (self.folder / str(os.getpid())).touch()
        time.sleep(3)
        return super().encode(frames)


class Broken(Blocks):
    """Cannot be loaded."""

    def __init__(self) -> None:
        raise RuntimeError("no such weights")


class Chained:
    """Frames coded given the one before as it was given back: how much lighter each quarter became.

    Context tokens are the means of 8x8 pixels. Pictures wrap around, so that every token changes them.
    """

    frame_size, grid, context_grid = (32, 32), (2, 2), (4, 4)
    codebook_size, context_codebook_size = 12, 16
    past, past_actions = 1, 0
    device = torch.device("cpu")

    def encode(self, frames: Tensor, actions: Tensor | None = None) -> Tensor:
        return torch.cat(list(self.encode_stream([frames])))

    def encode_stream(self, chunks: Iterable[Tensor], actions: Tensor | None = None) -> Iterator[Tensor]:
        picture: Tensor | None = None
        for chunk in chunks:
            rows = [torch.empty(0, 20, dtype=torch.int64)]
            for frame in chunk[:, None]:
                context = self.encode_context((frame if picture is None else picture)[:, None], None)
                before = (self._from_context(context) if picture is None else picture)[:, None]
                own = self.encode_next(before, None, frame)
                picture = self.decode_next(before, None, own)
                rows.append(torch.cat([context, own.flatten(1)], 1))
            yield torch.cat(rows)

    def decode(self, tokens: Tensor, actions: Tensor | None = None, first: Tensor | None = None) -> Tensor:
        frames = list[Tensor]()
        for row in tokens[:, None]:
            before = frames[-1] if frames else self._from_context(row[:, :16])
            frames.append(self.decode_next(before[:, None], None, row[:, 16:].view(1, 2, 2)))
        return torch.cat(frames) if frames else torch.empty(0, 3, *self.frame_size, dtype=torch.uint8)

    def encode_context(self, pictures: Tensor, actions: Tensor | None) -> Tensor:
        return _means(pictures[:, 0], 8).flatten(1) // 16

    def encode_next(self, pictures: Tensor, actions: Tensor | None, frames: Tensor) -> Tensor:
        return ((_means(frames, 16) - _means(pictures[:, 0], 16)) // 20 + 6).clamp(0, 11)

    def decode_next(self, pictures: Tensor, actions: Tensor | None, tokens: Tensor) -> Tensor:
        lighter = ((tokens - 6) * 20 + 3).repeat_interleave(16, 1).repeat_interleave(16, 2)
        return ((pictures[:, 0] + lighter[:, None]) % 256).to(torch.uint8)

    def _from_context(self, context: Tensor) -> Tensor:
        grey = (context.view(-1, 1, 4, 4) * 16 + 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
        return grey.expand(-1, 3, -1, -1).to(torch.uint8)


def _means(frames: Tensor, side: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(frames.float().mean(1, keepdim=True), side)[:, 0].round().long()
