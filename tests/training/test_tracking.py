"""--track: a tracker sees the numbers of metrics.jsonl, and training stays as it is."""

from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from framepred.config.recipe import Recipe
from framepred.errors import FramepredError
from framepred.training.loop import TrainProgress
from framepred.training.pipeline import Job, train
from framepred.training.tracking import check_tracker, tracked

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def progress(run: Path) -> Generator[object, None, None]:
    """Three steps of the tokenizer, whose state is saved, then two of the predictor."""
    for stage, count in (("tokenizer", 3), ("predictor", 2)):
        yield "something else"
        for step in range(1, count + 1):
            values = {"validation_loss": 0.5} if step == count else {}
            yield TrainProgress(stage, step, 0.1, 1.0 / step, 100.0, "tokens", 1.0, None, values)
        save_file({"x": torch.zeros(1)}, run / f"resume-{stage}.safetensors", {"step": str(count)})


def test_each_step_is_shown_and_the_second_stage_counts_on(tmp_path: Path) -> None:
    passed = list(tracked(progress(tmp_path), "tensorboard", tmp_path, Recipe()))
    assert len(passed) == 7
    seen = EventAccumulator(str(tmp_path / "tensorboard" / "framepred")).Reload()
    steps = {name: [event.step for event in seen.Scalars(name)] for name in seen.Tags()["scalars"]}
    assert steps["tokenizer/loss"] == [1, 2, 3]
    assert steps["predictor/loss"] == [4, 5]
    assert steps["predictor/validation_loss"] == [5]
    assert [event.value for event in seen.Scalars("tokenizer/loss")] == pytest.approx([1, 1 / 2, 1 / 3])
    written = next((tmp_path / "tensorboard").rglob("hparams.yml")).read_text()
    assert "predictor.layers" in written


def test_who_stops_early_stops_training_too(tmp_path: Path) -> None:
    closed: list[bool] = []

    def steps() -> Generator[object, None, None]:
        try:
            yield from progress(tmp_path)
        finally:
            closed.append(True)

    shown = tracked(steps(), "tensorboard", tmp_path, Recipe())
    assert [next(shown) for _ in range(3)]
    shown.close()
    assert closed == [True]


def test_a_tracker_that_is_not_there_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("framepred.training.tracking.find_spec", lambda name: None)
    with pytest.raises(FramepredError, match=r"tracker wandb is not installed: pip install 'framepred\[wandb\]'"):
        list(train(Job([str(tmp_path)], tmp_path / "run", Recipe(), tracker="wandb")))
    assert not (tmp_path / "run").exists()
    with pytest.raises(FramepredError, match="tracker 'paper' is not known; give one of tensorboard, trackio, wandb"):
        check_tracker("paper")
