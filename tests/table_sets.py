"""Parquet files and WebDataset tars of the episodes in lerobot_set, made without framepred and without datasets."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lerobot_set import LENGTHS, actions_of, frames_of, png

EPISODES = range(len(LENGTHS))


def frames_parquet(path: Path, **more: Any) -> Path:
    """Write one PNG a row."""
    table = {
        "image": [png(f) for i in EPISODES for f in frames_of(i, LENGTHS[i])],
        "action": [a.tolist() for i in EPISODES for a in actions_of(i, LENGTHS[i])],
        "episode": [f"e{i}" for i in EPISODES for _ in range(LENGTHS[i])],
    }
    pq.write_table(pa.table(table | more), path)
    return path


def episodes_table() -> dict[str, Any]:
    """Return a row an episode, its frames a list of PNGs."""
    return {
        "clip": [[png(f) for f in frames_of(i, LENGTHS[i])] for i in EPISODES],
        "moves": [actions_of(i, LENGTHS[i]).tolist() for i in EPISODES],
        "said": [f"words {i}" for i in EPISODES],
    }


def tar(path: Path, samples: list[dict[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as made:
        for i, sample in enumerate(samples):
            for ending, data in sample.items():
                about = tarfile.TarInfo(f"sample{i:03d}.{ending}")
                about.size = len(data)
                made.addfile(about, io.BytesIO(data))
    return path
