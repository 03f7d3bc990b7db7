"""What all commands share: the group, which turns errors into one line, and their common options."""

import errno
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

import framepred
from framepred.cli.console import warn
from framepred.cli.help import Command
from framepred.errors import FramepredError, FramepredWarning


@contextmanager
def terminate_like_interrupt() -> Iterator[None]:
    """Let SIGTERM (of a scheduler) and SIGHUP (of a terminal that closes) end a block as Ctrl-C does."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    ending = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    # What is ignored (nohup) or has a handler stays so.
    ending = [number for number in ending if signal.getsignal(number) == signal.SIG_DFL]
    try:
        for number in ending:
            signal.signal(number, stop)
        yield
    finally:
        for number in ending:
            signal.signal(number, signal.SIG_DFL)


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
                with terminate_like_interrupt():
                    return super().invoke(ctx)
            except FramepredError as error:
                warn(f"framepred: {error}")
                ctx.exit(1)
            except KeyboardInterrupt:
                warn("framepred: interrupted")
                ctx.exit(1)
            except OSError as error:
                warn(f"framepred: {_what_failed(error)}")
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
