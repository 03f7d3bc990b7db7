"""Footage → a token store of segments, many at once: how a GPU tokenizes for a predictor."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from framepred.io.atomic import writing
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokens.store import StoreInfo, store_schema, write_store_info
from framepred.training.streams import Footage, chains


def segment_starts(lengths: Sequence[int], frames: int, generator: torch.Generator) -> Tensor:
    """Return where segments of so many frames begin, int64 (M,): each episode is cut from a random place on."""
    starts, begin = list[int](), 0
    for length in lengths:
        shift = int(torch.randint(max(1, min(frames, length - frames + 1)), (1,), generator=generator))
        starts += range(begin + shift, begin + length - frames + 1, frames)
        begin += length
    return torch.tensor(starts, dtype=torch.int64)


@torch.inference_mode()
def store_segments(
    tokenizer: TemporalAutoencoder, footage: Footage, actions: Tensor | None, starts: Tensor, frames: int,
    store: Path, info: StoreInfo, fps: float, at_once: int,
) -> float:  # fmt: skip
    """Write the tokens of segments from `starts` (M,) on as episodes of a store; return the share of null codes.

    `actions` are those after each frame of the footage, as an episode has them. One segment in eight knows none.
    """
    net, null = tokenizer.net, 0.0
    for number, part in enumerate(starts.split(at_once)):
        at = part.to(tokenizer.device)
        blind = (torch.arange(len(at)) % 8 == 0).to(at.device)
        context, own = [], []
        for _, _, coded in chains(net, footage, at, frames, blind):
            context.append(coded.context.flatten(1))
            own.append(net.codes.ids(coded.digits).flatten(1))
        own_rows, context_rows = (torch.stack(rows, 1).flatten(1).cpu() for rows in (own, context))
        null += float((own_rows == net.codes.null).float().mean()) * len(at)
        taken = [
            None if actions is None or hidden else actions[s : s + frames].tolist()
            for s, hidden in zip(part.tolist(), blind.tolist(), strict=True)
        ]
        count = len(at)
        names = [f"segment-{s:09d}" for s in part.tolist()]
        columns = {
            "episode": names, "source": ["segments"] * count, "content": names, "key": names,
            "fps": [fps] * count, "num_frames": [frames] * count,
            "times": [[t / fps for t in range(frames)]] * count,
            "grid_height": [info.grid[0]] * count, "grid_width": [info.grid[1]] * count,
            "tokens": own_rows.tolist(), "actions": taken,
            "context_height": [info.context_grid[0]] * count, "context_width": [info.context_grid[1]] * count,
            "context_tokens": context_rows.tolist(), "captions": [[]] * count,
        }  # fmt: skip
        store.mkdir(parents=True, exist_ok=True)
        with writing(store / f"episodes-{number:05d}.parquet") as temporary:
            pq.write_table(pa.table(columns, schema=store_schema(info)), temporary)
    write_store_info(store, "", info)
    return null / max(1, len(starts))
