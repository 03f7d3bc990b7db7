"""The training loop: one for every stage, resumable to the same result, on any number of processes."""

import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from framepred.config.recipe import TrainingRecipe
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.io.atomic import write_text
from framepred.training.muon import Muon
from framepred.training.resume import load_state, save_state, swapped


@dataclass(frozen=True)
class Stage:
    """What the loop trains: `loss(model, step)` → (scalar, values to log) on this process's share.

    The batch must be a function of `step` alone, so that a resumed run repeats it.
    """

    name: str
    model: nn.Module
    loss: Callable[[nn.Module, int], tuple[Tensor, dict[str, float]]]
    validate: Callable[[nn.Module], dict[str, float]]
    learning_rate: float
    weight_decay: float
    ema_decay: float
    items_per_step: int
    unit: str
    matrices: tuple[nn.Parameter, ...] = ()
    """Hidden weights that Muon moves; AdamW moves all others."""
    inherited: tuple[nn.Parameter, ...] = ()
    """Weights that learn at `inherited_rate` in place of `learning_rate`."""
    inherited_rate: float = 0.0


@dataclass(frozen=True)
class Budget:
    """How long a stage runs: `steps`, or `seconds` if given, counted over all its sessions."""

    steps: int
    seconds: float | None = None

    @property
    def half(self) -> "Budget":
        """Return what each of two stages has that share this."""
        return Budget((self.steps + 1) // 2, self.seconds and self.seconds / 2)

    def fraction(self, step: int, elapsed: float) -> float:
        """Return how much of the budget is used, in [0, 1]."""
        return min(1.0, elapsed / max(self.seconds, 1e-9) if self.seconds is not None else step / self.steps)


@dataclass(frozen=True)
class TrainProgress:
    """A moment of training: `rate` in `unit` a second, `fraction` of the budget used, times in seconds."""

    stage: str
    step: int
    fraction: float
    loss: float
    rate: float
    unit: str
    elapsed: float
    remaining: float | None
    values: dict[str, float] = field(default_factory=dict)


_THREADS_BESIDE_GPU = 4


def make_accelerator() -> Accelerator:
    """Return the process's view of the launch: device and ranks."""
    # Precision is set in `arithmetic`: accelerate keeps the first one for the life of a process.
    # Ranks wait while the first one tokenizes, which may take longer than the usual half hour.
    patient = InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerator = Accelerator(cpu=not torch.accelerator.is_available(), mixed_precision="no", kwargs_handlers=[patient])
    assert accelerator.num_processes == int(os.environ.get("WORLD_SIZE", "1")), "processes train apart"
    if accelerator.device.type != "cpu" and "OMP_NUM_THREADS" not in os.environ:
        # There is little to do beside a GPU: 16 threads that wait halve the rate (scripts/results/bench_train.md).
        torch.set_num_threads(min(_THREADS_BESIDE_GPU, torch.get_num_threads()))
    return accelerator


def arithmetic(accelerator: Accelerator, loop: TrainingRecipe) -> torch.autocast:
    """Return the context that computes in the recipe's precision."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=loop.precision == "bf16")


def fit(
    stage: Stage, accelerator: Accelerator, budget: Budget, loop: TrainingRecipe, run: Path
) -> Iterator[TrainProgress]:
    """Train a stage, yielding progress; leave its averaged weights in `stage.model`.

    State is saved to RUN/resume-STAGE.safetensors every `save_minutes` and on interrupt; where it
    exists, training goes on from it. Logs go to RUN/metrics.jsonl.
    """
    state_file = run / f"resume-{stage.name}.safetensors"
    optimizers, rates = _optimizers(stage)
    model, *wrapped = accelerator.prepare(stage.model, *optimizers)
    inner: list[torch.optim.Optimizer] = [w.optimizer for w in wrapped]
    # In the wrapper torch finds weights that two layers share under one of their two names alone.
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    parameters = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    step, before = 0, 0.0
    if state_file.exists():
        step, before = load_state(state_file, bare, inner, parameters, average)
    log = _Log(run / "metrics.jsonl", stage.name, step, accelerator.is_main_process)
    runner: Any = _compiled(model, accelerator) if loop.compile else model
    started = last_save = time.monotonic()
    shown: list[tuple[float, int]] = [(started, step)]
    progress: TrainProgress | None = None

    def save() -> None:
        if step:  # Before the first there is nothing to keep, and asking Adam for its state makes it count one.
            save_state(
                state_file, accelerator, bare, inner, parameters, average, step, before + time.monotonic() - started
            )

    try:
        while True:
            now = time.monotonic()
            due = float(now - last_save > loop.save_minutes * 60)
            fraction, due = _agreed(accelerator, budget.fraction(step, before + now - started), due)
            if due:
                save()
                last_save = time.monotonic()
            if fraction >= 1.0:
                break
            groups = [group for optimizer in inner for group in optimizer.param_groups]
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate * min(1.0, (fraction + 1e-4) / loop.warmup) * (1 - fraction)
            model.train()
            with arithmetic(accelerator, loop):
                loss, values = stage.loss(runner, step)
            if not bool(torch.isfinite(loss)):
                raise FramepredError(
                    f"{stage.name}: the loss became {float(loss.detach())} at step {step}; lower "
                    f"{stage.name}.learning_rate (now {stage.learning_rate}) with --set and --resume"
                )
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(parameters, loop.clip_gradient)
            with arithmetic(accelerator, loop):
                for optimizer in wrapped:
                    optimizer.step()
                    optimizer.zero_grad()
            step += 1
            decay = min(stage.ema_decay, step / (step + 10))
            torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - decay)

            now = time.monotonic()
            fraction = budget.fraction(step, before + now - started)
            if step % loop.validate_every == 0 or step == budget.steps:
                with swapped(parameters, average):
                    model.eval()
                    values = values | stage.validate(model)
            mean = float(accelerator.reduce(loss.detach().float(), "mean"))
            shown = [*shown[-20:], (now, step)]
            rate = (shown[-1][1] - shown[0][1]) * stage.items_per_step / max(now - shown[0][0], 1e-9)
            elapsed = before + now - started
            progress = TrainProgress(
                stage.name, step, fraction, mean, rate, stage.unit, elapsed,
                elapsed * (1 - fraction) / fraction if fraction else None, values,
            )  # fmt: skip
            log.write(progress)
            yield progress
    except (KeyboardInterrupt, GeneratorExit) as stop:
        # Ranks are interrupted at different steps and saving needs them all: several keep the last timed save.
        alone = accelerator.num_processes == 1
        if alone:
            save()
        log.close()
        if isinstance(stop, GeneratorExit):
            raise
        raise Interrupted(
            f"stopped in {stage.name} step {step}, {'all' if alone else 'the last timed state'} saved in {run}: "
            "give the same command with --resume to go on"
        ) from None
    save()
    for p, mean_weight in zip(parameters, average, strict=True):
        p.data.copy_(mean_weight)
    model.eval()
    if progress and step % loop.validate_every and step != budget.steps:
        progress = replace(progress, fraction=1.0, remaining=0.0, values=progress.values | stage.validate(model))
        log.write(progress)
        yield progress
    log.close()


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
    """Return AdamW, and Muon for the stage's matrices where there are any, and each parameter group's learning rate."""
    taken, inherited = ({id(p) for p in part} for part in (stage.matrices, stage.inherited))
    learning = [p for p in stage.model.parameters() if p.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    rates: list[float] = []
    for by_muon in (False, True):
        groups: list[dict[str, Any]] = []
        for rate, came in ((stage.learning_rate, False), (stage.inherited_rate, True)):
            mine = [p for p in learning if (id(p) in taken) is by_muon and (id(p) in inherited) is came]
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


class _Log:
    """RUN/metrics.jsonl: one line a step; lines after the step that is resumed from are dropped."""

    def __init__(self, file: Path, stage: str, step: int, writes: bool) -> None:
        self.file = None
        if not writes:
            return
        kept = []
        if file.exists():
            lines = [line for line in file.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if (row := json.loads(line))["stage"] != stage or row["step"] <= step]
        write_text(file, "".join(line + "\n" for line in kept))
        self.file = file.open("a", buffering=1)

    def write(self, p: TrainProgress) -> None:
        if self.file:
            row = {"stage": p.stage, "step": p.step, "loss": p.loss, **p.values}
            self.file.write(
                json.dumps(row | {f"{p.unit}_per_second": round(p.rate, 1), "elapsed": round(p.elapsed, 2)}) + "\n"
            )

    def close(self) -> None:
        if self.file:
            self.file.close()
