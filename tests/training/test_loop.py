"""Training: it learns, it resumes to the same weights, and it gives the same on any number of processes."""

import json
import math
import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_SETTINGS, tiny_recipe
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from framepred.config.recipe import Recipe, TrainingRecipe, apply_settings, load_recipe, to_toml
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.evaluation.metrics import copy_last, mse, psnr_of
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.actions_csv import read_actions, write_actions
from framepred.sources.folder import find_videos
from framepred.tokenizer.checkpoint import load_tokenizer, tokenizer_sha256
from framepred.tokens.store import TokenEpisode
from framepred.tokens.tokenize import tokenize
from framepred.training import loop as training
from framepred.training import resume
from framepred.training.loop import Budget, Stage, TrainProgress, fit, make_accelerator
from framepred.training.objectives import _CollapseWatch, llama_config, predictor_stage
from framepred.training.pipeline import Job, train
from framepred.training.windows import Windows, split_episodes, step_generator
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.rollout import rollout
from framepred.world.run import Run, load_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


def rows(run: Path, stage: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["stage"] == stage]


def losses(run: Path, stage: str) -> list[float]:
    return [row["loss"] for row in rows(run, stage)]


def do(*sources: Path, out: Path, recipe: Recipe, **more: Any) -> list[TrainProgress]:
    """Train to the end; return the progress of the stages."""
    return [p for p in train(Job([str(s) for s in sources], out, recipe, **more)) if isinstance(p, TrainProgress)]


def equal_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one / "model.safetensors"), load_file(other / "model.safetensors")
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The loop, on a model of four numbers.


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


@pytest.mark.parametrize(
    ("quantizer", "advice"),
    [
        ("fsq", "fewer tokenizer.levels"),
        ("ema", "tokenizer.distance=cosine"),
    ],
)
def test_collapse_is_warned_about_while_it_lasts(quantizer: str, advice: str) -> None:
    watch = _CollapseWatch(apply_settings(Recipe(), [f"tokenizer.quantizer={quantizer}"]).tokenizer, warns=True)
    warned = []
    for step in range(1, 5001):
        healthy = 2500 < step < 3500
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            watch.count_step(900 if healthy else 20, 1000)
        if caught:
            warned.append(step)
            assert f"collapsing: 20 codes in use after {step} steps, of 1000 that a batch could have" in str(
                caught[0].message
            )
            assert advice in str(caught[0].message)
    assert warned == [500, 1000, 2000, 4000]
    silent = _CollapseWatch(Recipe().tokenizer, warns=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(600):
            silent.count_step(0, 1000)


# The predictor's loss.

LAYOUT = SequenceLayout(Vocabulary(0, 6, 3), (1, 2), ActionSpace("discrete", ("a",), count=3))


def token_episode(length: int, seed: int, actions_seed: int = 0) -> TokenEpisode:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 6, (length, 1, 2), generator=generator).int()
    actions = torch.randint(0, 3, (length,), generator=torch.Generator().manual_seed(actions_seed))
    return TokenEpisode(f"e{seed}", "s", 10.0, tokens, actions)


def stage_of(
    episodes: list[TokenEpisode], held: list[TokenEpisode], dropout: float, window: int = 4
) -> tuple[Stage, Llama]:
    settings = (*TINY_SETTINGS, f"predictor.window={window}", f"predictor.action_dropout={dropout}")
    recipe = apply_settings(load_recipe("tiny"), settings)
    model = Llama(llama_config(recipe.predictor, LAYOUT))
    model.initialise(torch.Generator().manual_seed(0))
    for parameter in model.parameters():
        parameter.data.mul_(4 if parameter.ndim > 1 else 1)
    parts = [Windows.build(part, ["s"] * len(part), LAYOUT, window, 1.0) for part in (episodes, held)]
    return predictor_stage(model, *parts, recipe, make_accelerator()), model


def test_loss_is_the_cross_entropy_of_the_real_frames_alone() -> None:
    episode = token_episode(3, 0)
    stage, model = stage_of([episode], [episode], dropout=0.0, window=6)
    ids = LAYOUT.pack(episode.tokens, LAYOUT.action_ids(episode.actions, 2))
    logits = model(ids[None])[0]
    expected = [nn.functional.cross_entropy(logits[p - 1], ids[p]) for p in (3, 4, 6, 7)]
    assert stage.loss(model, 0)[0].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)
    assert stage.validate(model)["validation_loss"] == pytest.approx(torch.stack(expected).mean().item(), rel=1e-5)


def test_a_dropped_action_is_not_seen() -> None:
    first, second = ([token_episode(8, 0, actions_seed=s)] for s in (1, 2))
    for dropout, alike in ((0.0, False), (1.0, True)):
        one, other = (stage_of(e, e, dropout) for e in (first, second))
        assert (one[0].loss(one[1], 0)[0].item() == other[0].loss(other[1], 0)[0].item()) is alike
        # Validation shows both, whatever the dropout.
        a, b = one[0].validate(one[1]), other[0].validate(other[1])
        assert a["validation_loss"] != b["validation_loss"]
        assert a["validation_loss_no_actions"] == b["validation_loss_no_actions"]


def test_nothing_held_out_nothing_validated() -> None:
    stage, model = stage_of([token_episode(8, 0)], [], 0.0)
    assert stage.validate(model) == {}


# Whole runs.


def test_held_out_episodes_never_touch_the_training(clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply_settings(
        tiny_recipe(), ["training.tokenizer_steps=4", "training.predictor_steps=4", "training.validate_every=4"]
    )
    names = [f"clip{i}" for i in range(5)]
    (held,) = split_episodes(names, recipe.data.validation_fraction)[1]
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        for i, name in enumerate(names):
            frames = read_video(clips_dir / f"{name}.mp4").frames
            if folder == "other" and i == held:
                frames = 255 - frames
            write_video(tmp_path / folder / f"{name}.mp4", frames, 10.0, lossless=True)
            write_actions(tmp_path / folder / f"{name}.actions.csv", *read_actions(clips_dir / f"{name}.actions.csv"))
        do(tmp_path / folder, out=tmp_path / f"run-{folder}", recipe=recipe)
    runs = tmp_path / "run-one", tmp_path / "run-other"
    for stage, value in (("tokenizer", "validation_psnr"), ("predictor", "validation_loss")):
        assert losses(runs[0], stage) == losses(runs[1], stage)
        assert rows(runs[0], stage)[-1][value] != rows(runs[1], stage)[-1][value]
    assert equal_weights(*runs)
    assert equal_weights(runs[0] / "tokenizer", runs[1] / "tokenizer")


def test_one_video_is_trained_on_with_a_warning(clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), ["training.tokenizer_steps=1", "training.predictor_steps=1"])
    with pytest.warns(FramepredWarning, match="no validation: whole episodes are held out, and there is only one"):
        do(clips_dir / "clip0.mp4", out=tmp_path / "run", recipe=recipe)
    assert not any(key.startswith("validation") for row in rows(tmp_path / "run", "predictor") for key in row)


def test_a_token_store_trains_as_its_videos_do(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=4", "training.validate_every=4"])
    folder = tiny_run / "tokenizer"
    for _ in tokenize(
        find_videos([clips_dir]), tmp_path / "store", load_tokenizer(folder), "t", tokenizer_sha256(folder), str(folder)
    ):
        pass
    do(tmp_path / "store", out=tmp_path / "a", recipe=recipe)
    do(clips_dir, out=tmp_path / "b", recipe=recipe, tokenizer=str(folder))
    assert losses(tmp_path / "a", "predictor") == losses(tmp_path / "b", "predictor")
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    run = load_run(tmp_path / "a")
    assert run.tokenizer_sha256 == tokenizer_sha256(folder)
    assert run.layout.actions == ActionSpace("discrete", ("action",), count=4)


def test_the_seed_decides_the_weights(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    short = ["training.predictor_steps=3"]
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        recipe = apply_settings(tiny_recipe(), [*short, f"training.seed={seed}"])
        do(clips_dir, out=tmp_path / name, recipe=recipe, tokenizer=str(tiny_run))
    assert equal_weights(tmp_path / "a", tmp_path / "b")
    assert not equal_weights(tmp_path / "a", tmp_path / "c")


def test_a_run_that_is_there_is_not_overwritten(clips_dir: Path, tiny_run: Path) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()}
    with pytest.raises(FramepredError, match="exists and is not empty: give --resume to go on, --overwrite"):
        do(clips_dir, out=tiny_run, recipe=tiny_recipe())
    assert {p.name: p.stat().st_mtime_ns for p in tiny_run.iterdir()} == before


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def command(clips: Path, out: Path, recipe: Path, *more: str) -> list[str]:
    return ["-m", "framepred", "train", str(clips), "-o", str(out), "--recipe", str(recipe), *more]


def kill_midway(arguments: list[str], run: Path, stage: str, step: int) -> int:
    """Start a training, SIGKILL it when `stage` has done `step` steps and saved; return its last logged step."""
    log = run / "metrics.jsonl"
    with subprocess.Popen(
        [sys.executable, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if process.poll() is not None:
                assert process.stderr is not None
                raise AssertionError(process.stderr.read().decode())
            lines = log.read_text().splitlines()[:-1] if log.exists() else []
            done = sum(json.loads(line)["stage"] == stage for line in lines if line.endswith("}"))
            if done >= step and (run / f"resume-{stage}.safetensors").exists():
                break
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert not (run / "model.safetensors").exists()
    return len(rows(run, stage)) if (run / "metrics.jsonl").read_text().endswith("\n") else step


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_very_same_weights(clips_dir: Path, tmp_path: Path) -> None:
    settings = ["training.tokenizer_steps=60", "training.predictor_steps=80", "training.validate_every=25"]
    expected = tmp_path / "whole"
    do(clips_dir, out=expected, recipe=apply_settings(tiny_recipe(), settings))

    # Saved every tenth of a second: some steps are lost with each kill and must be done again alike.
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(to_toml(apply_settings(tiny_recipe(), [*settings, "training.save_minutes=0.002"])))
    run = tmp_path / "killed"
    assert kill_midway(command(clips_dir, run, recipe), run, "tokenizer", 15) < 60
    assert kill_midway(command(clips_dir, run, recipe, "--resume"), run, "predictor", 20) < 80
    finished = subprocess.run(
        [sys.executable, *command(clips_dir, run, recipe, "--resume")],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr.decode()

    assert equal_weights(run / "tokenizer", expected / "tokenizer")
    assert equal_weights(run, expected)
    for stage, steps in (("tokenizer", 60), ("predictor", 80)):
        assert [row["step"] for row in rows(run, stage)] == list(range(1, steps + 1))
        assert losses(run, stage) == losses(expected, stage)
    assert not list(run.rglob("*.partial"))


@pytest.mark.slow
@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_two_processes_give_the_losses_of_one(quantizer: str, clips_dir: Path, tmp_path: Path) -> None:
    settings = ["training.tokenizer_steps=6", "training.predictor_steps=6", "training.validate_every=3",
                f"tokenizer.quantizer={quantizer}", "tokenizer.codebook_size=16", "tokenizer.code_dim=4"]  # fmt: skip
    recipe = apply_settings(tiny_recipe(), settings)
    file = tmp_path / "recipe.toml"
    # Saving at every step, so that what is saved has been gathered from both.
    recipe = apply_settings(recipe, ["training.save_minutes=0"])
    file.write_text(to_toml(recipe))
    # With --cpu, accelerate would start one process; without, framepred finds the processes and no GPU.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
              *command(clips_dir, tmp_path / "two", file)]  # fmt: skip
    made = subprocess.run([sys.executable, *launch], env=ENVIRONMENT, capture_output=True, timeout=180, check=False)
    assert made.returncode == 0, made.stderr.decode()[-3000:]
    assert made.stdout.decode().count(": done") == 1
    do(clips_dir, out=tmp_path / "one", recipe=recipe)
    for stage in ("tokenizer", "predictor"):
        assert [r["step"] for r in rows(tmp_path / "two", stage)] == [r["step"] for r in rows(tmp_path / "one", stage)]
        assert losses(tmp_path / "two", stage) == pytest.approx(losses(tmp_path / "one", stage), abs=1e-4)
    two, one = (rows(tmp_path / name, "predictor")[-1]["validation_loss"] for name in ("two", "one"))
    assert two == pytest.approx(one, abs=1e-3)
    assert load_run(tmp_path / "two").window == recipe.predictor.window
    if quantizer == "fsq":
        # What both saved, both load: embedding and head share weights, which have one name in the file.
        weights = (tmp_path / "two" / "model.safetensors").read_bytes()
        again = subprocess.run(
            [sys.executable, *launch, "--resume"], env=ENVIRONMENT, capture_output=True, timeout=180, check=False
        )
        assert again.returncode == 0, again.stderr.decode()[-3000:]
        assert (tmp_path / "two" / "model.safetensors").read_bytes() == weights


# A world that is learned in seconds: a square of 8 pixels goes round a 4x4 torus as its actions say.

SIDE, CELL = 32, 8
STEPS = {0: (0, -1), 1: (0, 1), 2: (-1, 0), 3: (1, 0)}


def walk(seed: int, frames: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.randint(0, 4, (2,), generator=generator).tolist()
    actions = torch.randint(0, 4, (frames,), generator=generator)
    pictures = torch.full((frames, 3, SIDE, SIDE), 40, dtype=torch.uint8)
    for t, action in enumerate(actions.tolist()):
        pictures[t, :, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 230
        row, column = (row + STEPS[action][0]) % 4, (column + STEPS[action][1]) % 4
    return pictures, actions


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of walks and a run that has learned them."""
    folder = tmp_path_factory.mktemp("world")
    clips = folder / "clips"
    clips.mkdir()
    for i in range(12):
        frames, actions = walk(i)
        write_video(clips / f"walk{i}.mp4", frames, 10.0, lossless=True)
        write_actions(clips / f"walk{i}.actions.csv", actions, ["move"])
    do(clips, out=folder / "run", recipe=world_recipe())
    return clips, folder / "run"


def world_recipe(*more: str) -> Recipe:
    settings = (
        *TINY_SETTINGS, "data.size=32", "tokenizer.downsampling=16", "tokenizer.levels=[4, 4]", "tokenizer.augment=0.0",
        "tokenizer.learning_rate=0.003", "tokenizer.ema_decay=0.97", "training.tokenizer_steps=250",
        "predictor.width=64", "predictor.mlp_width=128", "predictor.window=3", "predictor.batch_size=32",
        "predictor.learning_rate=0.004", "predictor.ema_decay=0.98", "predictor.action_dropout=0.1",
        "training.predictor_steps=400", "training.validate_every=100", *more,
    )  # fmt: skip
    return apply_settings(load_recipe("tiny"), settings)


def held_out(clips: Path) -> Path:
    paths = sorted(clips.glob("*.mp4"))
    (index,) = split_episodes([p.stem for p in paths], world_recipe().data.validation_fraction)[1]
    return paths[index]


def score(run: Run, video: Path, actions: Tensor | None, context: int = 4, horizon: int = 16) -> float:
    """Return the PSNR of a greedy rollout's mean error."""
    clip = read_video(video)
    made = torch.stack(list(rollout(run, clip, actions, context, horizon, temperature=0)))
    return float(psnr_of(mse(made, clip.frames[context : context + horizon]).mean()))


@pytest.mark.slow
def test_a_learned_world_is_predicted_where_it_was_never_seen(world: tuple[Path, Path]) -> None:
    clips, folder = world
    run, video = load_run(folder), held_out(clips)
    frames = read_video(video).frames
    actions, _ = read_actions(video.with_suffix(".actions.csv"))
    model = score(run, video, actions)
    copying = float(psnr_of(mse(copy_last(frames[:4], 16), frames[4:20]).mean()))
    shuffled = actions.clone()
    shuffled[3:] = (actions[3:] + 1 + torch.arange(len(actions) - 3) % 3) % 4
    wrong, without = score(run, video, shuffled), score(run, video, None)
    print(f"model {model:.1f} dB, copying {copying:.1f}, wrong actions {wrong:.1f}, no actions {without:.1f}")
    assert model > copying + 8
    assert model > wrong + 8
    assert model > without + 4


@pytest.mark.slow
def test_the_losses_of_a_learned_world_fall(world: tuple[Path, Path]) -> None:
    _, folder = world
    tokens, frames = losses(folder, "predictor"), losses(folder, "tokenizer")
    assert tokens[0] > 1.5
    assert sum(tokens[-20:]) / 20 < 0.15
    assert sum(frames[-10:]) / 10 < 0.1 * frames[0]
    last = rows(folder, "predictor")[-1]
    assert last["validation_loss"] < 0.3 * last["validation_loss_no_actions"]


@pytest.mark.slow
def test_a_learned_world_takes_few_passes(world: tuple[Path, Path]) -> None:
    from framepred.decoding.sampling import Sampling
    from framepred.world.rollout import predict

    clips, folder = world
    run, video = load_run(folder), held_out(clips)
    tokens = run.tokenizer.encode(read_video(video).frames[:4])
    actions, _ = read_actions(video.with_suffix(".actions.csv"))
    made = {
        name: list(predict(run, tokens, actions, 12, 1, Sampling(0), name)) for name in ("sequential", "speculative")
    }
    pairs = zip(made["sequential"], made["speculative"], strict=True)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in pairs)
    assert made["speculative"][-1].passes < made["sequential"][-1].passes


@pytest.mark.slow
def test_init_from_goes_on_where_the_run_ended(world: tuple[Path, Path], tmp_path: Path) -> None:
    clips, folder = world
    recipe = world_recipe("training.predictor_steps=5", "predictor.learning_rate=0.0001")
    first = shutil.copytree(folder, tmp_path / "first")
    about = json.loads((first / "framepred.json").read_text())
    (first / "framepred.json").write_text(json.dumps(about | {"temperature": 0.7}))
    do(clips, out=tmp_path / "more", recipe=recipe, init_from=str(first))
    before, after = losses(folder, "predictor"), losses(tmp_path / "more", "predictor")
    assert after[0] < sum(before[-20:]) / 20 + 0.2
    assert after[0] < 0.15 * before[0]
    assert (tmp_path / "more" / "tokenizer" / "model.safetensors").read_bytes() == (
        folder / "tokenizer" / "model.safetensors"
    ).read_bytes()
    more = load_run(tmp_path / "more")
    assert more.layout == load_run(folder).layout
    assert more.temperature == 0.7
