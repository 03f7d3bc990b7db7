"""The training loop, the same for every stage: resumable to the same result, on any number of processes."""

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from framepred.config.recipe import TrainingRecipe
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.io.interrupts import interrupts_held
from framepred.training.arithmetic import arithmetic
from framepred.training.log import MetricsLog
from framepred.training.muon import Muon
from framepred.training.preview import Preview
from framepred.training.resume import TrainState, is_shared_out, make_whole


@dataclass(frozen=True)
class Stage:
    """What the loop trains: `loss(model, step, fraction)` → (scalar, values to log), on this process's rows.

    `fraction` is how much of the budget is used. The batch must depend on `step` and the model's buffers alone, so that
    a resumed run repeats it.
    """

    name: str
    model: nn.Module
    loss: Callable[[nn.Module, int, float], tuple[Tensor, dict[str, float]]]
    validate: Callable[[nn.Module], dict[str, float]]
    learning_rate: float
    weight_decay: float
    ema_decay: float
    items_per_step: int
    unit: str
    matrices: tuple[nn.Parameter, ...] = ()
    """Hidden weights that Muon trains; AdamW trains all others."""
    inherited: tuple[nn.Parameter, ...] = ()
    """Weights that learn at `inherited_rate` in place of `learning_rate`."""
    inherited_rate: float = 0.0
    about: Mapping[str, str] = field(default_factory=dict)
    """What is written beside the saved state."""
    preview: Callable[[], Tensor | None] = lambda: None
    """Draws held-out frames and what `model` makes of them, uint8 (3, H, W)."""


@dataclass(frozen=True)
class Budget:
    """How long a stage runs: `steps`, or `seconds` if given, counted over all its sessions."""

    steps: int
    seconds: float | None = None

    def fraction(self, step: int, elapsed: float) -> float:
        """Return how much of the budget is used, in [0, 1]."""
        return min(1.0, elapsed / max(self.seconds, 1e-9) if self.seconds is not None else step / self.steps)


@dataclass(frozen=True)
class TrainProgress:
    """Training after a step: `rate` in `unit` a second, `fraction` of the budget used, times in seconds."""

    stage: str
    step: int
    fraction: float
    loss: float
    rate: float
    unit: str
    elapsed: float
    remaining: float | None
    values: dict[str, float] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return a line of metrics.jsonl."""
        row = {"stage": self.stage, "step": self.step, "loss": self.loss, **self.values}
        return row | {f"{self.unit}_per_second": round(self.rate, 1), "elapsed": round(self.elapsed, 2)}


_THREADS_BESIDE_GPU = 4


def make_accelerator(tracker: str | None = None, folder: Path | None = None) -> Accelerator:
    """Return the process's view of the launch: device and ranks, and a tracker with a folder for its files."""
    # Precision is set in `arithmetic`: accelerate keeps the first one for the life of a process.
    # All ranks wait while the first one tokenizes, which may take longer than the default limit of half an hour.
    patient = InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=[patient], log_with=tracker,
        project_dir=folder,
    )  # fmt: skip
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1")), "accelerate missed processes"
    if accelerator.device.type != "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # A GPU leaves the CPU little to do: 16 threads that wait halve the rate (scripts/results/bench_train.md).
        torch.set_num_threads(min(_THREADS_BESIDE_GPU, torch.get_num_threads()))
    return accelerator


def own_rows(accelerator: Accelerator, batch: int) -> slice:
    """Return this process's rows of the global batch, so that the result does not depend on the number of processes."""
    each, rest = divmod(batch, accelerator.num_processes)
    if rest:
        raise FramepredError(
            f"a batch of {batch} cannot be shared by {accelerator.num_processes} processes: "
            "set tokenizer.batch_size and predictor.batch_size to multiples of them"
        )
    return slice(accelerator.process_index * each, (accelerator.process_index + 1) * each)


def fit(
    stage: Stage, accelerator: Accelerator, budget: Budget, loop: TrainingRecipe, run: Path
) -> Iterator[TrainProgress]:
    """Train a stage, yielding progress after each step; leave its averaged weights in `stage.model`.

    State is saved to RUN/resume-STAGE.safetensors every `save_minutes` and on interrupt, and resumed from. Each step is
    logged in RUN/metrics.jsonl. Raises Interrupted on Ctrl-C, FramepredError where the loss or a file is broken.
    """
    session = _Session(stage, accelerator, loop, run / f"resume-{stage.name}.safetensors")
    log = MetricsLog(run / "metrics.jsonl", stage.name, session.state.step, accelerator.is_main_process)
    progress: TrainProgress | None = None
    try:
        for progress in session.steps(budget, log):
            yield progress
    except (KeyboardInterrupt, GeneratorExit) as stop:
        # Ranks are interrupted at different steps, and saving needs them all: several keep the last timed save.
        alone = accelerator.num_processes == 1
        if alone:
            session.save()
        log.close()
        if isinstance(stop, GeneratorExit):
            raise
        if not session.file.exists():
            raise Interrupted(f"stopped in {stage.name} before a step was saved") from None
        raise Interrupted(
            f"stopped in {stage.name} step {session.state.step}, {'all' if alone else 'the last timed state'} saved "
            f"in {run}: give the same command with --resume to go on"
        ) from None
    with interrupts_held():
        session.finish()
        ended = progress if progress and not session.validates(budget) else None
        if ended:
            ended = replace(ended, fraction=1.0, remaining=0.0, values=ended.values | session.validate(True))
            log.write(ended.to_row())
    if ended:
        yield ended
    make_whole(session.model)
    log.close()


class _Session:
    """One process's training of a stage, from its beginning or from a saved state to the end or an interrupt."""

    def __init__(self, stage: Stage, accelerator: Accelerator, loop: TrainingRecipe, file: Path) -> None:
        self.stage, self.accelerator, self.loop, self.file = stage, accelerator, loop, file
        optimizers, self.rates = _optimizers(stage)
        self.model, *self.optimizers = accelerator.prepare(stage.model, *optimizers)
        self.state = TrainState.of(self.model, [wrapped.optimizer for wrapped in self.optimizers])
        if file.exists():
            self.state.load(file)
        self.runner: Any = _compiled(self.model, accelerator) if loop.compile else self.model
        self.began = time.monotonic()
        self.preview = Preview(file.with_name("preview.png"), stage.preview)

    def elapsed(self) -> float:
        """Return the seconds spent on the stage, earlier sessions included."""
        return self.state.seconds + time.monotonic() - self.began

    def steps(self, budget: Budget, log: MetricsLog) -> Iterator[TrainProgress]:
        """Train until the budget is used up, log each step, and save whenever `save_minutes` have passed."""
        state, stage, last_save = self.state, self.stage, self.began
        recent = [(self.began, state.step)]
        while True:
            due = float(time.monotonic() - last_save > self.loop.save_minutes * 60)
            fraction, due = _agreed(self.accelerator, budget.fraction(state.step, self.elapsed()), due)
            if due:
                self.save()
                last_save = time.monotonic()
            if fraction >= 1.0:
                return
            # Half a step would be saved as none and made again, and one without its line in the log be missing there.
            with interrupts_held():
                loss, values = self._step(fraction)
                now, elapsed = time.monotonic(), self.elapsed()
                fraction = budget.fraction(state.step, elapsed)
                if self.validates(budget):
                    values = values | self.validate(at_end=fraction >= 1.0)
                recent = [*recent[-20:], (now, state.step)]
                rate = (state.step - recent[0][1]) * stage.items_per_step / max(now - recent[0][0], 1e-9)
                progress = TrainProgress(
                    stage.name, state.step, fraction, float(self.accelerator.reduce(loss, "mean")), rate, stage.unit,
                    elapsed, elapsed * (1 - fraction) / fraction if fraction else None, values,
                )  # fmt: skip
                log.write(progress.to_row())
            yield progress

    def _step(self, fraction: float) -> tuple[Tensor, dict[str, float]]:
        """Move the weights by one batch; return its loss float32 and the values to log."""
        state, stage = self.state, self.stage
        groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate * min(1.0, (fraction + 1e-4) / self.loop.warmup) * (1 - fraction)
        self.model.train()
        with arithmetic(self.accelerator, self.loop):
            loss, values = stage.loss(self.runner, state.step, fraction)
        if not bool(torch.isfinite(loss)):
            raise FramepredError(
                f"{stage.name}: the loss became {float(loss.detach())} at step {state.step}; lower "
                f"{stage.name}.learning_rate (now {stage.learning_rate}) with --set and --resume"
            )
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(state.parameters, self.loop.clip_gradient)
        with arithmetic(self.accelerator, self.loop):
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
        state.count_step(stage.ema_decay)
        return loss.detach().float(), values

    def validates(self, budget: Budget) -> bool:
        """Say whether the last step is one that is followed by validation."""
        return self.state.step % self.loop.validate_every == 0 or self.state.step == budget.steps

    def validate(self, at_end: bool = False) -> dict[str, float]:
        """Return the values of validating the averaged weights, and draw what they make of held-out frames."""
        self.model.eval()
        with self.state.averaged():
            if self.accelerator.is_main_process and not is_shared_out(self.model):
                self.preview.update(at_end)
            return self.stage.validate(self.model)

    def save(self) -> None:
        # Before the first step there is nothing to save, and asking Adam for its state would count one.
        if self.state.step:
            self.state.save(self.file, self.accelerator, self.elapsed(), self.stage.about)

    def finish(self) -> None:
        """Save, and leave the averaged weights in the model."""
        self.save()
        self.state.take_average()
        self.model.eval()


def _compiled(model: nn.Module, accelerator: Accelerator) -> Any:
    compilers = [os.environ.get("CXX", "g++"), "clang++", "cl"]
    if accelerator.device.type == "cpu" and not any(map(shutil.which, compilers)):
        warnings.warn(
            FramepredWarning("training.compile needs a C++ compiler (g++ or clang++) and finds none: slower without"),
            stacklevel=2,
        )
        return model
    return torch.compile(model)


def _optimizers(stage: Stage) -> tuple[list[torch.optim.Optimizer], list[float]]:
    """Return AdamW, Muon where the stage has matrices, and the learning rate of each parameter group."""
    matrices, inherited = ({id(p) for p in part} for part in (stage.matrices, stage.inherited))
    learning = [p for p in stage.model.parameters() if p.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    rates: list[float] = []
    for by_muon in (False, True):
        groups: list[dict[str, Any]] = []
        for rate, is_inherited in ((stage.learning_rate, False), (stage.inherited_rate, True)):
            mine = [p for p in learning if (id(p) in matrices) is by_muon and (id(p) in inherited) is is_inherited]
            for decays in (True, False):
                parameters = [p for p in mine if (p.ndim >= 2) is decays]
                if parameters:
                    groups.append({"params": parameters, "weight_decay": stage.weight_decay if decays else 0.0})
                    rates.append(rate)
        if groups and by_muon:
            optimizers.append(Muon(groups, lr=stage.learning_rate))
        elif groups:
            optimizers.append(torch.optim.AdamW(groups, lr=stage.learning_rate, betas=(0.9, 0.95), fused=True))
    return optimizers, rates


def _agreed(accelerator: Accelerator, *values: float) -> list[float]:
    """Return rank 0's values on every rank: clocks differ, and all must save and stop at the same step."""
    if accelerator.num_processes == 1:
        return list(values)
    shared = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    torch.distributed.broadcast(shared, 0)
    return shared.tolist()
