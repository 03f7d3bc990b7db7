"""`framepred train` with FSDP on CPUs, where accelerate has to be told to: it does so on GPUs alone."""

from typing import Any

from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

from framepred.cli import main
from framepred.training import pipeline
from framepred.training.loop import make_accelerator


def sharing(*arguments: Any, **more: Any) -> Accelerator:
    """Return what `make_accelerator` makes, with FSDP in place of DDP."""
    accelerator = make_accelerator(*arguments, **more)
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2)
    accelerator.state.distributed_type = DistributedType.FSDP
    assert accelerator.is_fsdp2
    return accelerator


if __name__ == "__main__":
    pipeline.make_accelerator = sharing  # type: ignore[attr-defined]
    main()
