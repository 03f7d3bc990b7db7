"""What people see: progress and tables on stderr, results on stdout."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from textwrap import TextWrapper
from typing import IO, Any, TypeVar

import click

from framepred.io.progress import Progress

T = TypeVar("T")


_QUIET = "framepred.quiet"


def set_quiet(ctx: click.Context, quiet: bool) -> None:
    """Leave out what is no result, warning or error, in this command."""
    ctx.meta[_QUIET] = quiet


def _is_quiet() -> bool:
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.meta.get(_QUIET))


def say(message: str) -> None:
    """Write one line to stderr, unless the command is to be quiet."""
    if not _is_quiet():
        warn(message)


def warn(message: str) -> None:
    """Write one line to stderr in any case: a warning or an error. Work does not end because nobody reads it."""
    _write(_folded(message, sys.stderr))


def _write(message: str) -> None:
    # While a bar is drawn, stderr is its own: it moves out of the way, which click would not let it do.
    drawn = hasattr(sys.stderr, "rich_proxied_file")
    with suppress(OSError):
        click.echo(message, sys.stderr if drawn else None, err=True)


def tell(message: str) -> None:
    """Write sentences of the result to stdout."""
    click.echo(_folded(message, sys.stdout))


def _folded(message: str, stream: IO[str]) -> str:
    """Return lines that go on in another line, between words, where they are wider than a terminal."""
    if not stream.isatty():
        return message
    fill = TextWrapper(
        shutil.get_terminal_size().columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    ).fill
    return "\n".join(map(fill, message.split("\n")))


def say_next(*words: object) -> None:
    """Say which command comes next, filled in."""
    if not _is_quiet():
        # In one line, however long: it is copied.
        _write(f"next: framepred {shlex.join(map(str, words))}")


def print_json(value: Any) -> None:
    """Write one strict JSON object to stdout."""
    click.echo(json.dumps(value, allow_nan=False))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Write a table to stdout; where it is wider than the terminal, the words of its head go over several lines."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, header in enumerate(headers):
        table.add_column(header, justify="left" if i == 0 else "right", no_wrap=i == 0, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if title:
        click.echo(title)
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else 160).print(table)


def duration(seconds: float | None) -> str:
    """Return seconds as people say them: 42s, 3m05s, 2h10m."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    return f"{whole // 60}m{whole % 60:02d}s" if whole < 3600 else f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def sparkline(values: Sequence[float | None], width: int = 72) -> str:
    """Return values as a line of bars, the highest of each stretch; a space where there is none."""
    size = max(1, -(-len(values) // width))
    known = [[v for v in values[i : i + size] if v is not None] for i in range(0, len(values), size)]
    heights = [max(part) for part in known if part]
    low, high = min(heights, default=0.0), max(heights, default=0.0)
    step = (high - low) / 7 or 1.0
    return "".join("▁▂▃▄▅▆▇█"[round((max(part) - low) / step)] if part else " " for part in known)


_EVERY = 20.0
"""Seconds between two lines of progress where there is no terminal."""


def track(items: Iterator[T], describe: Callable[[T], tuple[float, str]]) -> Iterator[T]:
    """Pass items through, drawing a bar from `describe(item)` → (fraction done, words).

    Without a terminal, a line is written every 20 seconds.
    """
    if _is_quiet() or not sys.stderr.isatty():
        said = time.monotonic()
        for item in items:
            fraction, words = describe(item)
            if time.monotonic() - said >= _EVERY:
                say(f"{fraction:4.0%} {words}")
                said = time.monotonic()
            yield item
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=12), TextColumn("{task.percentage:>3.0f}%"), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        for item in items:
            fraction, words = describe(item)
            bar.update(task, completed=fraction, description=words)
            yield item


def show_progress(item: Any) -> tuple[float, str]:
    """Describe the library's Progress for `track`; anything else is a result, which comes last."""
    if not isinstance(item, Progress):
        return 1.0, "done"
    left = "" if item.remaining is None else f", {duration(item.remaining)} left"
    return item.done / item.total, f"{item.done} of {item.total}{left}, {item.name}"


def consume(items: Iterator[T], describe: Callable[[T], tuple[float, str]] = show_progress) -> T | None:
    """Run items to their end under a bar; return the last."""
    last = None
    for last in track(items, describe):  # noqa: B007
        pass
    return last
