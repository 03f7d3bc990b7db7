"""`framepred tokenize`: videos → a token store."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
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
from framepred.io.remote import is_remote, place


def _load_keeping_memory(name: str, size: tuple[int, int] | None, fit: Any, device: str) -> Any:
    """Load a tokenizer in a process that encodes, this one or a worker, and let it keep its memory."""
    from framepred.io.zoo import tokenizer_folder
    from framepred.tokenizer.checkpoint import load_tokenizer
    from framepred.world.device import choose_device

    keep_memory()
    return load_tokenizer(tokenizer_folder(name), size, choose_device(device), fit)


def _shard(_: click.Context, __: click.Parameter, value: str) -> tuple[int, int]:
    number, slash, count = value.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= 100_000):
        raise click.BadParameter(f"{value!r}: give i/n, from 1/n to n/n")
    return int(number), int(count)


@cli.command(
    sections={
        "How it is encoded": ("tokenizer", "size", "fit", "fps"),
        "How it is shared out": ("workers", "shard", "executor", "settings"),
    }
)
@options.SOURCES
@click.option("-o", "--out", required=True, help="Folder of the token store, or a URL as s3://BUCKET/FOLDER.")
@click.option("--tokenizer", default="doom-64", show_default=True, help="Name in the zoo, folder, or hf://owner/name.")
@click.option(
    "--size",
    callback=options.frame_size,
    help="Side, or HEIGHTxWIDTH, for a tokenizer of another library.  [default: 256]",
)
@options.fit("the tokenizer's, crop for those that come along")
@click.option("--fps", type=click.FloatRange(0, 1000, min_open=True), help="Resample by timestamp to this rate.")
@click.option(
    "--workers", default=1, show_default=True, type=click.IntRange(1, 1024),
    help="Processes that encode; with --executor, tasks at once.",
)  # fmt: skip
@click.option("--shard", default="1/1", callback=_shard, help="i/n: take the i-th of n parts, for a scheduler's jobs.")
@click.option(
    "--executor", type=click.Choice(["local", "slurm", "ray"]), help="Run shards as tasks of datatrove, here or there."
)
@options.settings("executor")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def tokenize(
    sources: tuple[str, ...], out: str, tokenizer: str, size: tuple[int, int] | None, fit: Any,
    fps: float | None, workers: int, shard: tuple[int, int], executor: str | None, settings: tuple[str, ...],
    device: str, overwrite: bool, as_json: bool,
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
      # eight shards, by the machines of a Ray cluster
      framepred tokenize s3://b/in -o s3://b/tokens --executor ray --workers 8
    """
    from framepred.io.hub import is_address
    from framepred.io.zoo import tokenizer_folder
    from framepred.sources.find import find_episodes
    from framepred.tokenizer.checkpoint import tokenizer_sha256
    from framepred.tokens.workers import Workers

    store = _store(out, executor, shard, settings, overwrite)
    videos = find_episodes(sources)
    folder = tokenizer_folder(tokenizer)
    where = str(folder.resolve())
    load = partial(_load_keeping_memory, tokenizer if is_address(tokenizer) else where, size, fit)
    # Whoever hands out tasks need not have the device of those who do them.
    loaded = load("cpu" if executor else device)
    if size is not None and loaded.frame_size != size:
        takes, given = ("x".join(map(str, s)) for s in (loaded.frame_size, size))
        raise FramepredError(f"tokenizer {tokenizer} takes frames of {takes}, not {given}: leave --size out")
    name = tokenizer if is_address(tokenizer) else folder.parent.name if folder.name == "tokenizer" else folder.name
    origin = name, tokenizer_sha256(folder), where
    about = {"path": out, "tokenizer": name, "tokens_per_frame": loaded.grid[0] * loaded.grid[1]}
    there = partial(load, device)
    if executor:
        counts = _by_tasks(videos, store, loaded, origin, fps, there, (executor, workers, settings))
    else:
        job = repr((sources, origin[1], size, loaded.frame_size, fps, shard))
        inputs = [*sources, str(folder)]
        parts = Workers(workers, there) if workers > 1 else None
        counts = _here(videos, store, loaded, origin, fps, parts, shard, _whole(store, inputs, job, overwrite, shard))
    if as_json:
        print_json(about | counts)
    elif "tasks" in counts:
        click.echo(f"{out}: {counts['tasks']} tasks were handed to SLURM; give the same command again when they ended")
    else:
        bad = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        click.echo(
            f"{out}: {counts['episodes']} episodes, {counts['frames']} frames added, "
            f"{about['tokens_per_frame']} tokens a frame, {counts['frames_per_second']:,.0f} frames/s{bad}"
        )
        say_next("train", out, "-o", "run", "--minutes", 30)


def _store(out: str, executor: str | None, shard: tuple[int, int], settings: Sequence[str], overwrite: bool) -> Path:
    """Return the place of the store; raise for options that do not go together."""
    if executor and shard != (1, 1):
        raise click.UsageError("--executor hands out the shards itself: leave --shard out, or leave --executor out")
    if settings and not executor:
        raise click.UsageError("--set changes a value of the --executor: give one")
    store = place(out)
    if overwrite and (executor or is_remote(store)):
        raise click.UsageError(f"--overwrite replaces a folder here, in one job: delete {out} yourself")
    return store


def _whole(
    out: Path, inputs: Sequence[str], job: str, overwrite: bool, shard: tuple[int, int]
) -> AbstractContextManager[Path]:
    """Return the place to write in: a remote one, a folder here, or one beside that is to replace it."""
    from framepred.tokens.shards import SHARDS

    if is_remote(out):
        return nullcontext(out)
    _check_shards(out, overwrite, shard)
    return replacing(out, overwrite, *inputs, keep=[SHARDS], job=job, resume=overwrite)


def _here(
    videos: Any, out: Path, tokenizer: Any, origin: tuple[str, str, str], fps: float | None, parts: Any,
    shard: tuple[int, int], whole: AbstractContextManager[Path],
) -> dict[str, Any]:  # fmt: skip
    """Tokenize in this process or its workers; return what was done."""
    from framepred.tokens.tokenize import tokenize as run_tokenize

    with (
        saying_what_is_saved(out, whole, _saved) as store,
        closing(run_tokenize(videos, store, tokenizer, *origin, fps, parts, shard)) as steps,
    ):
        last = consume(steps)
    if last is None:
        mine = len(videos[shard[0] - 1 :: shard[1]])
        return {"episodes": mine, "frames": 0, "skipped": 0, "frames_per_second": 0.0}
    return {"episodes": last.done, "frames": last.frames, "skipped": last.skipped, "frames_per_second": last.rate}


def _by_tasks(
    videos: Any, out: Path, tokenizer: Any, origin: tuple[str, str, str], fps: float | None, load: Callable[[], Any],
    how: tuple[str, int, Sequence[str]],
) -> dict[str, Any]:  # fmt: skip
    """Tokenize as tasks of datatrove; return what was done, or how many tasks were handed over."""
    import torch

    from framepred.io.toml import read_settings
    from framepred.tokens.cluster import Plan, make_executor, run_tasks
    from framepred.tokens.keys import find_missing, read_keys
    from framepred.tokens.shards import stored_frames
    from framepred.tokens.tokenize import Agreed, store_info

    name, workers, settings = how
    agreed = Agreed.on(videos, out)
    # What does not fit is said before any task begins.
    info = store_info(agreed, out, tokenizer, origin, fps)
    threads = max(1, torch.get_num_threads() // workers) if name == "local" else None
    plan = Plan(agreed, str(out if is_remote(out) else out.resolve()), info, load, origin, fps, threads)
    executor = make_executor(plan, name, workers, read_settings(settings))
    began, before = time.monotonic(), stored_frames(out)
    with saying_what_is_saved(out, nullcontext(out), _saved):
        ended = run_tasks(executor)
    if not ended:
        return {"tasks": executor.world_size}
    rows = read_keys(out)
    places = {row.source for row in rows}
    skipped = len(find_missing([video for video in agreed.videos if video.key not in places], rows)[0])
    frames = stored_frames(out) - before
    return {
        "episodes": len(agreed.videos) - skipped, "frames": frames, "skipped": skipped,
        "frames_per_second": frames / (time.monotonic() - began),
    }  # fmt: skip


def _check_shards(out: Path, overwrite: bool, shard: tuple[int, int]) -> None:
    """Raise FramepredError where --overwrite would delete what other jobs have put into the folder."""
    from framepred.tokens.shards import shard_files

    mine = f"episodes-{shard[0]}of{shard[1]}-"
    if overwrite and shard[1] > 1 and not all(file.name.startswith(mine) for file in shard_files(out)):
        raise FramepredError(
            f"{out} holds more than part {shard[0]} of {shard[1]}, which --overwrite would delete: delete it first, or "
            "give each job its own -o"
        )


def _saved(store: Path) -> str:
    from framepred.tokens.shards import stored_episodes

    done = stored_episodes(store)
    return f"{done} episodes" if done else ""
