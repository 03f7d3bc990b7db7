"""What a log shows where there is no terminal."""

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
