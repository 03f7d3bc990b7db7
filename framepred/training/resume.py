"""The state of a training stage in one file: what `--resume` goes on from."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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

from framepred.errors import FramepredError
from framepred.io.atomic import writing

_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


@contextmanager
def swapped(parameters: list[nn.Parameter], values: list[Tensor]) -> Iterator[None]:
    """Put `values` into the parameters for a while."""
    own = [p.detach().clone() for p in parameters]
    for p, value in zip(parameters, values, strict=True):
        p.data.copy_(value)
    try:
        yield
    finally:
        for p, value in zip(parameters, own, strict=True):
            p.data.copy_(value)


def save_state(
    file: Path, accelerator: Accelerator, model: nn.Module, optimizers: list[torch.optim.Optimizer],
    parameters: list[nn.Parameter], average: list[Tensor], step: int, elapsed: float,
) -> None:  # fmt: skip
    """Write weights, their average and the optimizers' moments, gathered from all ranks; the file appears whole."""
    weights = _copies("model", get_model_state_dict(model, options=_FULL))
    with swapped(parameters, average):
        weights |= _copies("average", get_model_state_dict(model, options=_FULL))
    moments = get_optimizer_state_dict(model, optimizers, options=_FULL)
    # The state is gathered on rank 0 alone.
    if accelerator.is_main_process:
        for name, values in cast(dict[str, dict[str, Tensor]], moments["state"]).items():
            weights |= _copies(f"optimizer/{name}", values)
        groups = json.dumps(moments["param_groups"])
        try:
            with writing(file) as temporary:
                save_file(weights, temporary, {"step": str(step), "elapsed": repr(elapsed), "groups": groups})
        except FramepredError as error:
            raise FramepredError(f"{error}, then give the same command with --resume") from error


def _copies(part: str, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
    return {f"{part}/{k}": v.clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}


def load_state(
    file: Path,
    model: nn.Module,
    optimizers: list[torch.optim.Optimizer],
    parameters: list[nn.Parameter],
    average: list[Tensor],
) -> tuple[int, float]:
    """Put what `save_state` wrote where it was, in place; return the step and the seconds that were spent."""
    model_state: dict[str, dict[str, Any]] = {"model": {}, "average": {}}
    moments: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(file, "pt") as stored:
            about = stored.metadata()
            for key in stored.keys():
                part, name = key.split("/", 1)
                if part == "optimizer":
                    parameter, value = name.rsplit("/", 1)
                    moments.setdefault(parameter, {})[value] = stored.get_tensor(key)
                else:
                    model_state[part][name] = stored.get_tensor(key)
        set_model_state_dict(model, model_state["average"], options=_FULL)
        for mean, p in zip(average, parameters, strict=True):
            mean.copy_(p.detach())
        set_model_state_dict(model, model_state["model"], options=_FULL)
        state = {"state": moments, "param_groups": json.loads(about["groups"])}
        set_optimizer_state_dict(model, optimizers, state, options=_FULL)
        # Fused AdamW walks memory in order: moments must lie as their weights do (channels last).
        for weight, values in (item for optimizer in optimizers for item in optimizer.state.items()):
            for name, value in values.items():
                if value.shape == weight.shape:
                    values[name] = torch.empty_like(weight).copy_(value)
        return int(about["step"]), float(about["elapsed"])
    except Exception as error:
        raise FramepredError(f"cannot resume from {file} ({error}): delete it to train this stage afresh") from error
