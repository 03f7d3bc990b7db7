"""What all commands share: the group, which turns errors into one line, and their common options."""

import errno
import sys
import time
import warnings
from _thread import start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

import framepred
from framepred.cli.console import warn
from framepred.cli.help import Command
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.io.interrupts import interrupt_again, interrupts_noted, is_interrupt


@contextmanager
def interrupts_come_again() -> Iterator[None]:
    """Let an interrupt that Python ignores, because it came while an object was deleted, come once more."""
    before = sys.unraisablehook

    def hook(ignored: Any) -> None:
        if not isinstance(ignored.exc_value, KeyboardInterrupt):
            before(ignored)
            return
        # Not from here, where it would be ignored again: a thread whose start is not waited for.
        start_new_thread(_interrupt_soon, ())

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _interrupt_soon() -> None:
    time.sleep(0.05)
    interrupt_again()


class _Group(click.Group):
    """Turns FramepredError into one line and exit code 1, and warnings into lines on stderr."""

    command_class = Command

    def invoke(self, ctx: click.Context) -> Any:
        def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            if issubclass(category, FramepredWarning):
                warn(f"warning: {message}")

        with warnings.catch_warnings():
            warnings.showwarning = show  # type: ignore[assignment]
            warnings.simplefilter("always", FramepredWarning)
            try:
                with interrupts_noted(), interrupts_come_again():
                    return super().invoke(ctx)
            except (Exception, KeyboardInterrupt) as error:
                if isinstance(error, Interrupted) or (isinstance(error, FramepredError) and not is_interrupt(error)):
                    warn(f"framepred: {error}")
                elif is_interrupt(error) and not isinstance(error, click.ClickException | click.exceptions.Exit):
                    warn("framepred: interrupted")
                elif isinstance(error, OSError):
                    warn(f"framepred: {_what_failed(error)}")
                else:
                    raise
                ctx.exit(1)


def _what_failed(error: OSError) -> str:
    """Return the path that an operation of the system failed on, and the system's own words."""
    words = error.strerror or str(error) or type(error).__name__
    where = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
    line = f"{where}: {words}" if where else words
    return f"{line}; free space or choose another folder" if error.errno in (errno.ENOSPC, errno.EDQUOT) else line


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(framepred.__version__, prog_name="framepred")
def cli() -> None:
    """Predict how a video goes on: frames become tokens, and a Llama predicts the next ones.

    \b
    Try the model that comes along:
      framepred rollout clip.mp4
    Train one on your own videos, which makes all that it needs:
      framepred train videos/ -o run --minutes 30
      framepred rollout videos/one.mp4 --model run
      framepred eval held-out/ --model run
      framepred export run -o llama --format hf
    """
