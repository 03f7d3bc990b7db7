"""Episodes whose pictures come one by one, with their times, as arrays or encoded."""

import io
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.contract import StoredEpisode
from framepred.video.clock import resample
from framepred.video.resize import fit_frames


class PicturesEpisode(StoredEpisode):
    """A stored episode that gives its pictures one by one; scaled, resampled and joined they are its frames."""

    @abstractmethod
    def pictures(self) -> Iterator[tuple[float, Tensor]]:
        """Yield (seconds from the first, picture uint8 (3, H, W)) in order."""

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        rate, timed = self.resampled_to(fps), self.pictures()
        if rate:
            lasts = 1 / self.info().fps
            timed = resample(((seconds, lasts, picture) for seconds, picture in timed), rate)
        return in_chunks(timed, size, chunk)


def image_of(value: Any, where: str) -> Tensor:
    """Turn a picture, encoded bytes or an array (H, W), (H, W, C) or (C, H, W), into uint8 (3, H, W)."""
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        value = value["bytes"]
    if isinstance(value, bytes):
        try:
            value = np.asarray(Image.open(io.BytesIO(value)).convert("RGB"))
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise FramepredError(f"{where}: a picture cannot be read ({error}): mend or leave it out") from error
    elif isinstance(value, Image.Image):
        value = np.asarray(value.convert("RGB"))
    array = np.asarray(value)
    if array.ndim == 3 and array.shape[2] not in (1, 3) and array.shape[0] in (1, 3):
        array = array.transpose(1, 2, 0)
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] not in (1, 3):
        raise FramepredError(
            f"{where}: a picture is an array of {array.dtype} {tuple(array.shape)}: give uint8 (H, W, 3) or PNG or JPEG"
        )
    rgb = np.broadcast_to(array, (*array.shape[:2], 3))
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1)


def in_chunks(
    timed: Iterable[tuple[float, Tensor]], size: tuple[int, int], chunk: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scale frames uint8 (3, H, W) to `size` and join them: (≤ chunk, 3, H, W) and their times float64 (≤ chunk,)."""
    held, times = list[Tensor](), list[float]()
    for seconds, frame in timed:
        times.append(seconds)
        held.append(fit_frames(frame[None], size))
        if len(held) == chunk:
            yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
            held, times = [], []
    if held:
        yield torch.cat(held).contiguous(), torch.tensor(times, dtype=torch.float64)
