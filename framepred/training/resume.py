"""The state of a training stage in one file: what `--resume` goes on from."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from framepred.errors import FramepredError
from framepred.io.atomic import writing
from framepred.io.interrupts import interrupts_held

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass
class TrainState:
    """What training has made of a model: weights, their running average, optimizers, steps, and seconds spent.

    `seconds` are those of earlier sessions. `parameters` are the weights that learn.
    """

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    parameters: list[nn.Parameter]
    average: list[Tensor]
    step: int = 0
    seconds: float = 0.0

    @staticmethod
    def of(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> "TrainState":
        """Return the state before the first step of a model as accelerate has prepared it."""
        if isinstance(model, FullyShardedDataParallel):
            raise FramepredError(
                "FSDP of version 1 flattens the matrices that Muon needs whole: give accelerate launch --fsdp_version 2"
            )
        parameters = [p for p in model.parameters() if p.requires_grad]
        # In its wrapper, torch finds weights that two layers share under only one of their names.
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        return TrainState(bare, optimizers, parameters, [p.detach().clone() for p in parameters])

    def count_step(self, decay: float) -> None:
        """Count a step, and take its weights into the average; the first steps weigh more."""
        self.step += 1
        decay = min(decay, self.step / (self.step + 10))
        torch._foreach_lerp_(self.average, [p.detach() for p in self.parameters], 1 - decay)

    def take_average(self) -> None:
        """Put the averaged weights into the model."""
        for p, value in zip(self.parameters, self.average, strict=True):
            p.data.copy_(value)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the model for a while."""
        own = [p.detach().clone() for p in self.parameters]
        try:
            self.take_average()
            yield
        finally:
            with interrupts_held():
                for p, value in zip(self.parameters, own, strict=True):
                    p.data.copy_(value)

    def save(
        self, file: Path, accelerator: Accelerator, seconds: float, beside: Mapping[str, str] | None = None
    ) -> None:
        """Write the state, gathered from all ranks, after `seconds` in all, and more beside it.

        The file appears complete or not at all.
        """
        weights = _copies("model", get_model_state_dict(self.model, options=_FULL))
        with self.averaged():
            weights |= _copies("average", get_model_state_dict(self.model, options=_FULL))
        moments = get_optimizer_state_dict(self.model, self.optimizers, options=_FULL)
        # The state is gathered on rank 0 alone.
        if not accelerator.is_main_process:
            return
        for name, values in cast(dict[str, dict[str, Tensor]], moments["state"]).items():
            weights |= _copies(f"optimizer/{name}", values)
        about = {"step": str(self.step), "elapsed": repr(seconds), "groups": json.dumps(moments["param_groups"])}
        about |= beside or {}
        try:
            with writing(file) as temporary:
                # safetensors writes a file of its own name beside it first, which a kill leaves there.
                for left in file.parent.glob(".tmp??????"):
                    left.unlink(missing_ok=True)
                save_file(weights, temporary, about)
        except FramepredError as error:
            raise FramepredError(f"{error}, then give the same command with --resume") from error

    def load(self, file: Path) -> None:
        """Put a saved state into the model, its average and the optimizers, in place."""
        model_state: dict[str, dict[str, Any]] = {"model": {}, "average": {}}
        moments: dict[str, dict[str, Tensor]] = {}
        try:
            with interrupts_held(), safe_open(file, "pt") as stored:
                about = stored.metadata()
                for key in stored.keys():
                    part, name = key.split("/", 1)
                    if part == "optimizer":
                        parameter, value = name.rsplit("/", 1)
                        moments.setdefault(parameter, {})[value] = stored.get_tensor(key)
                    else:
                        model_state[part][name] = stored.get_tensor(key)
            set_model_state_dict(self.model, model_state["average"], options=_FULL)
            for mean, p in zip(self.average, self.parameters, strict=True):
                mean.copy_(p.detach())
            set_model_state_dict(self.model, model_state["model"], options=_FULL)
            state = {"state": moments, "param_groups": json.loads(about["groups"])}
            set_optimizer_state_dict(self.model, self.optimizers, state, options=_FULL)
            # Fused AdamW walks memory in order: moments must lie as their weights do (channels last).
            for weight, values in (item for optimizer in self.optimizers for item in optimizer.state.items()):
                for name, value in values.items():
                    if value.shape == weight.shape:
                        values[name] = torch.empty_like(weight).copy_(value)
            self.step, self.seconds = int(about["step"]), float(about["elapsed"])
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise FramepredError(
                f"cannot resume from {file} ({reason}): delete it to train this stage afresh"
            ) from error


def is_shared_out(model: nn.Module) -> bool:
    """Say whether a process holds but a part of the weights, as with FSDP: alone it cannot use the model."""
    return any(isinstance(weight, DTensor) for weight in model.parameters())


def make_whole(model: nn.Module) -> None:
    """Put together, on every process, the weights of a model that FSDP has shared out, which is not trained after."""
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            if isinstance(weight, DTensor):
                module.register_parameter(name, nn.Parameter(weight.full_tensor().detach(), weight.requires_grad))


def _copies(part: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{part}/{k}": v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
