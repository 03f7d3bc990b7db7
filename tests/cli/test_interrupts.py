"""Ctrl-C ends a command wherever it comes, with one line."""

import signal
import time
import weakref
from contextlib import nullcontext
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from framepred.cli.group import _Group
from framepred.cli.stopped import saying_what_is_saved
from framepred.errors import FramepredError


class Thing:
    """What a weak reference can point at."""


@click.group(cls=_Group)
def group() -> None:
    """A group as framepred's."""


@group.command()
@click.argument("name")
def deletes(name: str) -> None:
    """Get a signal while an object is deleted, where Python ignores exceptions."""
    thing = Thing()
    told = weakref.ref(thing, lambda _: signal.raise_signal(getattr(signal, name)))
    del thing
    for _ in range(3000):
        time.sleep(0.01)
    click.echo(f"went on {told}")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupt_that_python_ignores_comes_again(name: str) -> None:
    before = signal.getsignal(signal.SIGINT)
    if name != "SIGINT":
        # As in what a shell starts in the background.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        ended = CliRunner().invoke(group, ["deletes", name])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert ended.stderr == "framepred: interrupted\n"


@group.command()
def draws() -> None:
    """Get Ctrl-C in the middle of code that makes another error of it."""
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ValueError("Invalid affine transformation matrix") from None


@group.command()
@click.argument("folder", type=click.Path(path_type=Path))
def trains(folder: Path) -> None:
    """Get such an interrupt while something is saved."""
    with saying_what_is_saved(folder, nullcontext(folder), lambda _: "step 3"):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise FramepredError("weights cannot be read") from None


@group.command()
def fails() -> None:
    """Fail without any interrupt."""
    raise ValueError("a bug")


def test_an_interrupt_that_became_another_error_is_an_interrupt(tmp_path: Path) -> None:
    ended = CliRunner().invoke(group, ["draws"])
    assert (ended.exit_code, ended.stderr) == (1, "framepred: interrupted\n")
    ended = CliRunner().invoke(group, ["trains", str(tmp_path)])
    assert ended.exit_code == 1
    assert ended.stderr == f"framepred: stopped; step 3 saved in {tmp_path}: give the same command again to go on\n"


def test_an_error_after_a_command_that_was_interrupted_is_no_interrupt() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert CliRunner().invoke(group, ["draws"]).exit_code == 1
    assert isinstance(CliRunner().invoke(group, ["fails"]).exception, ValueError)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
