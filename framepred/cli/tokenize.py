"""`framepred tokenize`: videos → a token store."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, say_next
from framepred.cli.group import cli
from framepred.cli.memory import keep_memory
from framepred.cli.stopped import saying_what_is_saved
from framepred.errors import FramepredError
from framepred.io.outputs import replacing


def _load_keeping_memory(folder: Path, size: tuple[int, int] | None, device: str, fit: Any) -> Any:
    """Load a tokenizer in a process that encodes, this one or a worker, and let it keep its memory."""
    from framepred.tokenizer.checkpoint import load_tokenizer

    keep_memory()
    return load_tokenizer(folder, size, device, fit)


def _shard(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    number, slash, count = value.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= 100_000):
        raise click.BadParameter(f"{value!r}: give i/n, from 1/n to n/n")
    return int(number), int(count)


@cli.command(
    sections={"How it is encoded": ("tokenizer", "size", "fit", "fps"), "How it is shared out": ("workers", "shard")}
)
@options.SOURCES
@options.out("Folder of the token store.", required=True)
@click.option("--tokenizer", default="doom-64", show_default=True, help="Name in the zoo, folder, or hf://owner/name.")
@click.option(
    "--size",
    callback=options.frame_size,
    help="Side, or HEIGHTxWIDTH, for a tokenizer of another library.  [default: 256]",
)
@options.fit("the tokenizer's, crop for those that come along")
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Resample by timestamp to this rate.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 1024), help="Processes that encode.")
@click.option("--shard", default="1/1", callback=_shard, help="i/n: take the i-th of n parts, for a scheduler's jobs.")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def tokenize(
    sources: tuple[str, ...], out: Path, tokenizer: str, size: tuple[int, int] | None, fit: Any,
    fps: float | None, workers: int, shard: tuple[int, int], device: str, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn videos into tokens: Parquet that `datasets.load_dataset` opens.

    Run it again to add what is missing: what is there already is not touched. Jobs with --shard may
    share one folder, or have one each: their rows together are the same.

    \b
    Examples:
      # once, for many runs on the same videos
      framepred tokenize videos/ -o tokens
      # another tokenizer, in eight processes
      framepred tokenize videos/ -o tokens --tokenizer run --workers 8
    """
    from functools import partial

    from framepred.io.hub import is_address
    from framepred.io.zoo import tokenizer_folder
    from framepred.sources.find import find_episodes
    from framepred.tokenizer.checkpoint import tokenizer_sha256
    from framepred.tokens.store import SHARDS
    from framepred.tokens.tokenize import tokenize as run_tokenize
    from framepred.tokens.workers import Workers
    from framepred.world.device import choose_device

    videos = find_episodes(sources)
    folder = tokenizer_folder(tokenizer)
    load = partial(_load_keeping_memory, folder, size, choose_device(device), fit)
    loaded = load()
    if size is not None and loaded.frame_size != size:
        takes, given = ("x".join(map(str, s)) for s in (loaded.frame_size, size))
        raise FramepredError(f"tokenizer {tokenizer} takes frames of {takes}, not {given}: leave --size out")
    name = tokenizer if is_address(tokenizer) else folder.parent.name if folder.name == "tokenizer" else folder.name
    sha256, parts = tokenizer_sha256(folder), Workers(workers, load) if workers > 1 else None
    where, job = str(folder.resolve()), repr((sources, sha256, size, loaded.frame_size, fps, shard))
    _check_shards(out, overwrite, shard)
    place = replacing(out, overwrite, *sources, str(folder), keep=[SHARDS], job=job, resume=overwrite)
    with (
        saying_what_is_saved(out, place, _saved) as store,
        closing(run_tokenize(videos, store, loaded, name, sha256, where, fps, parts, shard)) as steps,
    ):
        last = consume(steps)
    tokens = loaded.grid[0] * loaded.grid[1]
    mine = len(videos[shard[0] - 1 :: shard[1]])
    done, frames, rate, skipped = (last.done, last.frames, last.rate, last.skipped) if last else (mine, 0, 0.0, 0)
    if as_json:
        print_json(
            {"path": str(out), "episodes": done, "frames": frames, "tokenizer": name, "skipped": skipped,
             "tokens_per_frame": tokens, "frames_per_second": rate}
        )  # fmt: skip
    else:
        bad = f", {skipped} skipped" if skipped else ""
        click.echo(f"{out}: {done} episodes, {frames} frames added, {tokens} tokens a frame, {rate:,.0f} frames/s{bad}")
        say_next("train", out, "-o", "run", "--minutes", 30)


def _check_shards(out: Path, overwrite: bool, shard: tuple[int, int]) -> None:
    """Raise FramepredError where --overwrite would delete what other jobs have put into the folder."""
    from framepred.tokens.store import shard_files

    mine = f"episodes-{shard[0]}of{shard[1]}-"
    if overwrite and shard[1] > 1 and not all(file.name.startswith(mine) for file in shard_files(out)):
        raise FramepredError(
            f"{out} holds more than part {shard[0]} of {shard[1]}, which --overwrite would delete: delete it first, or "
            "give each job its own -o"
        )


def _saved(store: Path) -> str:
    from framepred.tokens.store import stored_episodes

    done = stored_episodes(store)
    return f"{done} episodes" if done else ""
