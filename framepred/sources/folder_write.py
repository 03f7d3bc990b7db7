"""Episodes → a folder of videos with actions and captions beside."""

import warnings
from collections.abc import Generator, Sequence
from itertools import chain, count
from pathlib import Path

import torch
from torch import Tensor

from framepred.config.action_names import values_of
from framepred.errors import FramepredWarning
from framepred.io.atomic import writing_folder
from framepred.io.progress import Progress
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.sources.captions_csv import captions_path, write_captions
from framepred.sources.contract import StoredEpisode
from framepred.video.encode import CODECS, encoding


def write_folder(
    episodes: Sequence[StoredEpisode], out: Path, codec: str = "lossless"
) -> Generator[Progress, None, None]:
    """Write episodes as videos in the folder `out`, which appears when it is whole, yielding after each.

    Episodes of one name are numbered apart.
    """
    taken = set[str]()
    with writing_folder(out) as root:
        for done, stored in enumerate(episodes, 1):
            names = chain([stored.name], (f"{stored.name}-{number}" for number in count(2)))
            name = next(name for name in names if name not in taken)
            taken.add(name)
            path = root / f"{name}.mp4"
            info, loaded, times = stored.info(), stored.actions(), list[Tensor]()
            size = info.height, info.width
            with encoding(path, CODECS[codec], info.fps, size, info.even) as add:
                for frames, seconds in stored.stream_timed(size, None):
                    times.append(seconds)
                    for frame, second in zip(frames, seconds.tolist(), strict=True):
                        add(frame, second)
            shown = torch.cat(times)
            if info.even and bool(((shown - torch.arange(len(shown)) / info.fps).abs() > 0.1 / info.fps).any()):
                message = f"{stored.where} is not shown at an even rate: it is written at {info.fps:g} frames a second"
                warnings.warn(FramepredWarning(message), stacklevel=2)
            if loaded is not None:
                actions, columns = loaded
                write_actions(actions_path(path), actions, columns, values_of(columns))
            if captions := stored.captions(shown, info.fps):
                write_captions(captions_path(path), captions)
            yield Progress(done, len(episodes), stored.name)
