"""What a log shows where there is no terminal."""

import io
import re
import sys

import pytest

from framepred.cli import console


def test_without_a_terminal_a_line_comes_every_twenty_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])

    def steps() -> object:
        for step in range(70):
            now[0] += 1.0
            yield step

    assert console.consume(steps(), lambda step: (step / 70, f"step {step}")) == 69
    assert capsys.readouterr().err.splitlines() == [" 27% step 19", " 56% step 39", " 84% step 59"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_what_is_said_on_a_terminal_is_never_beside_the_bar_and_breaks_between_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    words = "validation: loss 1.234, psnr 24.56, usage 0.789, perplexity 345.6"

    def describe(step: int) -> tuple[float, str]:
        console.say(words)
        return step / 3, f"step {step}"

    console.consume(iter([1, 2]), describe)
    console.say(words)
    console.say_next("train", words)
    lines = re.sub(r"\x1b\[2K|\r", "\n", terminal.getvalue())
    lines = re.sub(r"\x1b\[[0-9;?]*\w", "", lines).splitlines()
    assert all(len(line) <= 40 for line in lines[:-1])
    assert sum(line.startswith("validation: loss 1.234") for line in lines) == 3
    assert sum("perplexity 345.6" in line for line in lines[:-1]) == 3
    # A command that is to be copied stays in one line.
    assert lines[-1] == f"next: framepred train '{words}'"
