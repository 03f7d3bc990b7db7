"""RUN/curves.svg: what metrics.jsonl says, drawn while training goes on."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framepred.cli.curves import drawing_curves
from framepred.evaluation.training_curves import training_curves
from framepred.training.loop import TrainProgress


def log(run: Path, stage: str, steps: int, **validated: float) -> None:
    rows = [{"stage": stage, "step": i + 1, "loss": 1 / (i + 1), "tokens_per_second": 9.0} for i in range(steps)]
    rows[-1] |= validated
    with (run / "metrics.jsonl").open("a") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))


def progress(count: int) -> Iterator[TrainProgress]:
    for step in range(1, count + 1):
        yield TrainProgress("predictor", step, step / count, 1.0, 1.0, "tokens", 1.0, None, {"validation_loss": 1.0})


def test_each_stage_and_kind_of_value_has_a_panel(tmp_path: Path) -> None:
    log(tmp_path, "tokenizer", 1000, validation_psnr=20.0)
    log(tmp_path, "predictor", 5, validation_loss=2.0, validation_loss_no_actions=2.5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "pred')
    drawn = training_curves(tmp_path)
    assert drawn is not None and drawn.startswith("<svg")
    for words in ("tokenizer: loss", "tokenizer: PSNR in dB", "predictor: loss", "validation loss no actions"):
        assert f">{words}<" in drawn
    assert "per second" not in drawn
    assert len(drawn) < 150_000


def test_nothing_logged_nothing_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert training_curves(tmp_path) is None


def test_progress_passes_and_curves_are_drawn_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path, "predictor", 5)
    clock, drawn = [0.0], list[float]()
    monkeypatch.setattr("framepred.cli.curves.time.monotonic", lambda: clock[0])

    def draw(run: Path) -> str:
        drawn.append(clock[0])
        clock[0] += 1.0
        return "<svg/>"

    monkeypatch.setattr("framepred.evaluation.training_curves.training_curves", draw)
    for passed in drawing_curves(progress(400), tmp_path):
        clock[0] += 1.0
        assert passed.step <= 400
    assert drawn[0] == 1.0 and drawn[-1] == clock[0] - 1.0
    assert 3 <= len(drawn) <= 2 + 0.02 * clock[0]
    assert (tmp_path / "curves.svg").read_text() == "<svg/>"


def test_without_matplotlib_there_are_no_curves_which_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log(tmp_path, "predictor", 5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert len(list(drawing_curves(progress(5), tmp_path))) == 5
    assert capsys.readouterr().err == "no curves.svg: pip install 'framepred[report]'\n"
    assert not (tmp_path / "curves.svg").exists()
