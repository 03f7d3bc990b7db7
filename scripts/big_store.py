"""A token store of any size made in no time: random tokens, which do not compress, and actions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from framepred.config.recipe import apply_settings, load_recipe
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.tokens.store import StoreInfo, store_schema, write_store_info

EPISODES, FRAMES = 10, 6000
"""Of each file of a store: with 64 tokens of two bytes a frame, 7.7 MB."""


def small_tokenizer(folder: Path) -> tuple[Autoencoder, str]:
    """Write a tokenizer of random weights, 64 tokens of 65,536 codes a frame; return it and its sha256."""
    recipe = apply_settings(load_recipe("tiny"), ["tokenizer.width=16", "tokenizer.levels=[16, 16, 16, 16]"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = Autoencoder(recipe.tokenizer, (64, 64))
    return tokenizer, save_tokenizer(folder, tokenizer, "")


def write_big_store(folder: Path, megabytes: float) -> Path:
    """Write a store of at least that size into `folder`/tokens, and its tokenizer beside; return the store."""
    tokenizer, sha256 = small_tokenizer(folder / "tokenizer")
    store, cells = folder / "tokens", tokenizer.grid[0] * tokenizer.grid[1]
    info = StoreInfo(
        "random", sha256, str((folder / "tokenizer").resolve()), tokenizer.codebook_size, tokenizer.grid, 0, (0, 0),
        tokenizer.frame_size, "discrete", ("move",), fps=0.0,
    )  # fmt: skip
    store.mkdir(parents=True)
    write_store_info(store, "episodes", info)
    tokens = np.random.default_rng(0).integers(0, tokenizer.codebook_size, EPISODES * FRAMES * cells, np.uint16)
    for number in range(-(-int(megabytes * 1e6) // tokens.nbytes)):
        table = _table(info, np.bitwise_xor(tokens, np.uint16(number % tokenizer.codebook_size)), number)
        pq.write_table(table, store / f"episodes-{number:05d}.parquet", compression="zstd")
    return store


def _table(info: StoreInfo, tokens: np.ndarray, number: int) -> pa.Table:
    names = [f"e{number}-{i}" for i in range(EPISODES)]
    lists = {
        "tokens": tokens,
        "actions": np.arange(EPISODES * FRAMES) % 4,
        "times": np.tile(np.arange(FRAMES) / 10, EPISODES),
    }
    plain = {
        "episode": names, "source": names, "content": names, "key": names, "captions": [None] * EPISODES,
        "fps": [10.0] * EPISODES, "num_frames": [FRAMES] * EPISODES, "grid_height": [info.grid[0]] * EPISODES,
        "grid_width": [info.grid[1]] * EPISODES,
    }  # fmt: skip
    schema, columns = store_schema(info), []
    for field in schema:
        if field.name in lists:
            values = pa.array(lists[field.name].astype(field.type.value_type.to_pandas_dtype()))
            offsets = np.linspace(0, len(values), EPISODES + 1).astype(np.int32)
            columns.append(pa.ListArray.from_arrays(pa.array(offsets), values))
        else:
            columns.append(pa.array(plain[field.name], field.type))
    return pa.table(columns, schema=schema)
