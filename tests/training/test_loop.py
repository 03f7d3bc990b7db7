"""The training loop, on a model of four numbers: its budget, saves, resuming and words."""

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from training_runs import losses, rows

from framepred.config.recipe import TrainingRecipe
from framepred.errors import FramepredError, Interrupted
from framepred.training import loop as training
from framepred.training import resume
from framepred.training.loop import Budget, Stage, fit, make_accelerator
from framepred.training.windows import step_generator

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def toy(
    before: Callable[[int], None] = lambda step: None,
    validate: Callable[[nn.Module], dict[str, float]] = lambda model: {},
) -> Stage:
    """Return a stage that fits a line; `before(step)` is called at the beginning of each step."""
    model = nn.Linear(3, 1)
    with torch.no_grad():
        model.weight.fill_(0.5)
        model.bias.zero_()

    def loss(run: nn.Module, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
        before(step)
        x = torch.randn(8, 3, generator=step_generator(0, step))
        return (run(x) - x @ torch.tensor([[1.0], [-2.0], [3.0]])).square().mean(), {"seen": float(step)}

    return Stage("toy", model, loss, validate, 0.05, 0.01, 0.9, 8, "rows")


LOOP = replace(TrainingRecipe(), precision="fp32", warmup=0.1, validate_every=10)


def fitted(stage: Stage, run: Path, steps: int = 40, loop: TrainingRecipe = LOOP) -> dict[str, Tensor]:
    for _ in fit(stage, make_accelerator(), Budget(steps), loop, run):
        pass
    return {name: value.clone() for name, value in stage.model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("budget", "step", "elapsed", "fraction"),
    [
        (Budget(100), 0, 9e9, 0.0), (Budget(100), 25, 0, 0.25), (Budget(100), 150, 0, 1.0),
        (Budget(100, 60.0), 99, 15, 0.25), (Budget(1, 60.0), 50, 90, 1.0), (Budget(100, 0.0), 0, 1, 1.0),
    ],
)  # fmt: skip
def test_budget_counts_steps_unless_it_has_seconds(budget: Budget, step: int, elapsed: float, fraction: float) -> None:
    assert budget.fraction(step, elapsed) == fraction


def test_learning_rate_rises_then_falls_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[torch.optim.Optimizer] = []
    build = training._optimizers

    def spy(stage: Stage) -> tuple[list[torch.optim.Optimizer], list[float]]:
        optimizers, each = build(stage)
        made.extend(optimizers)
        return optimizers, each

    monkeypatch.setattr(training, "_optimizers", spy)
    rates: list[float] = []
    fitted(toy(lambda step: rates.append(made[0].param_groups[0]["lr"])), tmp_path, steps=100)
    assert len(rates) == 100
    assert rates[0] < 0.001
    assert rates[:10] == sorted(rates[:10])
    assert max(rates) == pytest.approx(0.05 * 0.9, rel=0.02)
    assert rates[11:] == sorted(rates[11:], reverse=True)
    assert rates[55] == pytest.approx(0.05 * 0.45)
    assert 0 < rates[-1] <= 0.05 * 0.011


def test_training_learns_and_leaves_the_average(tmp_path: Path) -> None:
    stage = toy()
    weights = fitted(stage, tmp_path, steps=300)
    assert weights["weight"][0].tolist() == pytest.approx([1, -2, 3], abs=0.1)
    assert not stage.model.training
    with safe_open(tmp_path / "resume-toy.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor("average/weight"), weights["weight"])
        assert not torch.equal(stored.get_tensor("model/weight"), weights["weight"])


@pytest.mark.parametrize(
    ("how", "stop"),
    [
        ("interrupt", 0),
        ("interrupt", 1), ("interrupt", 17), ("interrupt", 39), ("close", 0), ("close", 17), ("close", 39),
    ],
)  # fmt: skip
def test_a_stopped_run_resumes_to_the_same_weights(how: str, stop: int, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    expected = fitted(toy(), tmp_path / "whole")

    def interrupt(step: int) -> None:
        if step == stop and how == "interrupt":
            raise KeyboardInterrupt

    run = tmp_path / "run"
    run.mkdir()
    steps = fit(toy(interrupt), make_accelerator(), Budget(40), LOOP, run)
    if how == "interrupt":
        said = rf"step {stop}, all saved in .*--resume to go on" if stop else "before a step was saved$"
        with pytest.raises(Interrupted, match=f"stopped in toy {said}"):
            list(steps)
    else:
        for _ in range(stop + 1):
            next(steps)
        steps.close()
    assert same(fitted(toy(), run), expected)
    assert [row["step"] for row in rows(run, "toy")] == list(range(1, 41))
    assert losses(run, "toy") == losses(tmp_path / "whole", "toy")


def test_ctrl_c_in_a_validation_loses_neither_its_step_nor_its_values(tmp_path: Path) -> None:
    came: list[int] = []

    def validate(model: nn.Module) -> dict[str, float]:
        if not came and (tmp_path / "run").is_dir():
            came.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        return {"validation_loss": float(model.bias.detach().sum())}  # type: ignore[union-attr, operator]

    (tmp_path / "whole").mkdir()
    expected = fitted(toy(validate=validate), tmp_path / "whole")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(Interrupted, match="stopped in toy step 10, all saved"):
        fitted(toy(validate=validate), run)
    assert same(fitted(toy(validate=validate), run), expected)
    one, other = ([(row["step"], row["loss"], row.get("validation_loss")) for row in rows(r, "toy")]
                  for r in (run, tmp_path / "whole"))  # fmt: skip
    assert one == other


def test_a_finished_run_does_no_more_steps(tmp_path: Path) -> None:
    expected = fitted(toy(), tmp_path)
    seen: list[int] = []
    assert same(fitted(toy(seen.append), tmp_path), expected)
    assert seen == []


def test_log_drops_what_came_after_the_saved_state_and_keeps_other_stages(tmp_path: Path) -> None:
    lines = [{"stage": "other", "step": 99, "loss": 1.0}, {"stage": "toy", "step": 1, "loss": 5.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"stage": "toy", "st')
    fitted(toy(), tmp_path, steps=5)
    assert [row["step"] for row in rows(tmp_path, "other")] == [99]
    assert [row["step"] for row in rows(tmp_path, "toy")] == [1, 2, 3, 4, 5]
    assert losses(tmp_path, "toy")[0] != 5.0


def test_a_loss_that_is_no_number_stops_with_advice(tmp_path: Path) -> None:
    stage = toy()
    broken = replace(
        stage, loss=lambda run, step, part: (stage.loss(run, step, part)[0] * (math.nan if step == 3 else 1), {})
    )
    with pytest.raises(
        FramepredError, match=r"toy: the loss became nan at step 3; lower toy.learning_rate \(now 0.05\)"
    ):
        fitted(broken, tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08\0\0\0\0\0\0\0{}      "])
def test_a_state_that_cannot_be_read_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "resume-toy.safetensors").write_bytes(content)
    with pytest.raises(
        FramepredError, match=r"cannot resume from .*resume-toy.safetensors .*delete it to train this stage afresh"
    ):
        fitted(toy(), tmp_path)


def test_a_state_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted(toy(), tmp_path, steps=5)
    before = (tmp_path / "resume-toy.safetensors").read_bytes()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(resume, "save_file", full)
    with pytest.raises(FramepredError, match=r"cannot write .*No space left.*--resume"):
        fitted(toy(), tmp_path, steps=9)
    assert (tmp_path / "resume-toy.safetensors").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "resume-toy.safetensors"]


def test_what_a_killed_save_left_is_taken_away(tmp_path: Path) -> None:
    # As safetensors names the file that it writes before it renames it.
    (tmp_path / ".tmpgLXnoR").write_bytes(b"half")
    fitted(toy(), tmp_path, steps=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "resume-toy.safetensors"]


def test_validation_sees_the_average_and_training_goes_on_from_the_weights(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    def validate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        seen.append(model.weight.detach().clone())
        return {"validation": float(len(seen))}

    weights = fitted(toy(validate=validate), tmp_path, steps=25)
    assert [row["step"] for row in rows(tmp_path, "toy") if "validation" in row] == [10, 20, 25]
    assert torch.equal(seen[-1], weights["weight"])
    (tmp_path / "plain").mkdir()
    assert same(fitted(toy(), tmp_path / "plain", steps=25), weights)


def test_seconds_are_counted_over_all_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(training.time, "monotonic", lambda: clock[0])

    def tick(_: int) -> None:
        clock[0] += 0.25

    steps = fit(toy(tick), make_accelerator(), Budget(1, 1.5), LOOP, tmp_path)
    first = [next(steps) for _ in range(3)]
    steps.close()
    clock[0] += 3600  # Time between sessions is not training.
    second = list(fit(toy(tick), make_accelerator(), Budget(1, 1.5), LOOP, tmp_path))
    assert [(p.step, p.elapsed) for p in first] == [(1, 0.25), (2, 0.5), (3, 0.75)]
    # The last is the validation after the last step.
    assert [(p.step, p.elapsed) for p in second] == [(4, 1.0), (5, 1.25), (6, 1.5), (6, 1.5)]
    assert [p.fraction for p in second] == pytest.approx([4 / 6, 5 / 6, 1, 1])
    assert [p.remaining for p in second] == pytest.approx([0.5, 0.25, 0, 0])
    assert second[0].rate == pytest.approx(8 / 0.25), "the rate is of this session"


def test_progress_says_what_is_left(tmp_path: Path) -> None:
    made = list(fit(toy(), make_accelerator(), Budget(20), LOOP, tmp_path))
    assert [p.step for p in made] == list(range(1, 21))
    assert [p.fraction for p in made] == pytest.approx([s / 20 for s in range(1, 21)])
    assert made[-1].remaining == 0
    assert all(p.rate > 0 and p.unit == "rows" and p.stage == "toy" for p in made)
    assert made[4].values == {"seen": 4.0}
