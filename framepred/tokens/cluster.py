"""Tokenizing as a pipeline of datatrove, one shard a task, run by datatrove's own executors: local, SLURM, Ray."""

import hashlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from framepred.errors import FramepredError, FramepredWarning
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.store import StoreInfo
from framepred.tokens.tokenize import Agreed, tokenize

EXECUTORS = {
    "local": ("datatrove.executor.local", "LocalPipelineExecutor"),
    "slurm": ("datatrove.executor.slurm", "SlurmPipelineExecutor"),
    "ray": ("datatrove.executor.ray", "RayPipelineExecutor"),
}
"""Name → the module and class that runs a pipeline."""
LOGS = ".datatrove"
"""Folder in a store of what datatrove writes: logs, and which tasks are completed."""
_OURS = ("self", "pipeline", "workers", "logging_dir", "depends", "skip_completed", "job_id_retriever")
_SAID_EVERY = 20.0


@dataclass(frozen=True)
class Plan:
    """What is tokenized: `load` loads the tokenizer where a task runs; `origin` is its name, sha256 and folder.

    `info` is what the store will say of itself.
    """

    agreed: Agreed
    store: str
    info: StoreInfo
    load: Callable[[], Tokenizer]
    origin: tuple[str, str, str]
    fps: float | None
    threads: int | None = None
    """Threads of a task, where not as many as torch takes."""


class ShardTask:
    """A step of a pipeline: task `rank` of `world_size` tokenizes that shard. It can be pickled.

    With `ends_parent`, the parent of its process is killed where that process is: it would wait for ever.
    """

    def __init__(self, plan: Plan, ends_parent: bool = False) -> None:
        self.plan, self.ends_parent = plan, ends_parent

    def __call__(self, data: Any, rank: int, world_size: int) -> None:
        with _killing_parent_too() if self.ends_parent else nullcontext():
            self._tokenize(rank, world_size)

    def _tokenize(self, rank: int, world_size: int) -> None:
        from datatrove.utils.logging import logger

        plan = self.plan

        def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
            # Of other tasks than the first, datatrove shows errors alone.
            logger.error(f"warning: {message}")

        if plan.threads:
            torch.set_num_threads(plan.threads)
        with warnings.catch_warnings():
            warnings.showwarning = tell  # type: ignore[assignment]
            warnings.simplefilter("always", FramepredWarning)
            shard = rank + 1, world_size
            said = time.monotonic()
            for progress in tokenize(plan.agreed, plan.store, plan.load(), *plan.origin, plan.fps, None, shard):
                if time.monotonic() - said >= _SAID_EVERY:
                    left = "?" if progress.remaining is None else f"{progress.remaining:.0f} s"
                    logger.info(f"shard {shard[0]} of {shard[1]}: {progress.done} of {progress.total}, {left} left")
                    said = time.monotonic()

    def __repr__(self) -> str:
        return f"framepred tokenize: {len(self.plan.agreed.videos)} videos into {self.plan.store}"


def make_executor(plan: Plan, name: str, workers: int, options: Mapping[str, Any]) -> Any:
    """Return datatrove's executor of a plan: `workers` tasks at once, as many in all unless the options say `tasks`.

    `options` are arguments of its class. What is completed is known by the videos, the tokenizer and the number of
    tasks: with others, every task looks again at what is missing. Raises FramepredError for options that it does not
    have, lacks or does not take, and where datatrove is not installed.
    """
    module, kind = EXECUTORS[name]
    try:
        made = getattr(import_module(module), kind)
        if name == "ray":
            import_module("ray")
    except ImportError as error:
        extra = "ray" if name == "ray" else "cluster"
        raise FramepredError(f"--executor {name} needs {error.name}: pip install 'framepred[{extra}]'") from error
    given: dict[str, Any] = {"tasks": workers, **options}
    known = {key: p for key, p in inspect.signature(made).parameters.items() if key not in _OURS}
    for key in given:
        if key not in known:
            raise FramepredError(f"--executor {name} has no option {key!r}: it has {', '.join(known)}")
    needed = [key for key, p in known.items() if p.default is p.empty and key not in given]
    if needed:
        raise FramepredError(f"--executor {name} needs {', '.join(f'--set {key}=...' for key in needed)}")
    if name == "slurm" and sys.prefix != sys.base_prefix and not {"env_command", "condaenv"} & given.keys():
        given.setdefault("venv_path", f"{sys.prefix}/bin/activate")
    states = [video.state for video in plan.agreed.videos]
    job = hashlib.sha256(repr((plan.info, given["tasks"], states)).encode()).hexdigest()[:12]
    try:
        return made(
            [ShardTask(plan, ends_parent=name == "ray")],
            workers=workers,
            logging_dir=f"{plan.store}/{LOGS}/{job}",
            **given,
        )
    except (TypeError, ValueError) as error:
        raise FramepredError(f"--executor {name} does not take these options: {error}") from error


def run_tasks(executor: Any) -> bool:
    """Run the tasks that are not completed; return False where they go on after this: SLURM's were handed over.

    Raises FramepredError where tasks fail, which the same call goes on from.
    """
    again = f"their logs are in {executor.logging_dir.resolve_paths('logs')}; give the same command again to go on"
    slurm = type(executor).__name__ == EXECUTORS["slurm"][1]
    try:
        if type(executor).__name__ == EXECUTORS["ray"][1]:
            _join_ray()
        with _noticing_deaths(executor):
            executor.run()
    except _WorkerDied:
        raise FramepredError(f"a worker was killed, or out of memory: {again}") from None
    except FileNotFoundError as error:
        if not slurm or error.filename != "sbatch":
            raise
        raise FramepredError(
            f"there is no sbatch on this machine: give the command where jobs are submitted; "
            f"what it would submit is {executor.logging_dir.resolve_paths('launch_script.slurm')}"
        ) from error
    if not slurm and (left := executor.get_incomplete_ranks(skip_completed=True)):
        raise FramepredError(f"{len(left)} of {executor.world_size} tasks did not complete: {again}")
    return not slurm


def _join_ray() -> None:
    """Join the Ray cluster that there is (RAY_ADDRESS, or one on this machine), or start one on this machine."""
    import ray

    if not ray.is_initialized():
        ray.init(logging_level="WARNING")


@contextmanager
def _killing_parent_too() -> Iterator[None]:
    """Kill the parent of this process where this process is killed in the block.

    datatrove's actor in Ray waits for ever for a child that is gone; of an actor that is gone, Ray knows.
    """
    program = "import os, sys; sys.stdin.read() or os.kill(int(sys.argv[1]), 9)"
    words = [sys.executable, "-c", program, str(os.getppid())]
    # Its input ends with this process, or with a word that all is well.
    with subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as watcher:
        try:
            yield
        finally:
            watcher.communicate("ended")


class _WorkerDied(Exception):
    """A worker of a pool was killed."""


@contextmanager
def _noticing_deaths(executor: Any) -> Iterator[None]:
    """Raise _WorkerDied in the block where a child of this process is killed.

    The pool of datatrove's local executor puts another worker in its place, and waits for ever for what the first was
    to give. So more children than the workers and the manager of its queue tell of a death, however soon it came.
    """
    from multiprocess import active_children  # type: ignore[import-untyped]

    main = threading.main_thread()
    if threading.current_thread() is not main or main.ident is None or not hasattr(signal, "SIGUSR2"):
        yield
        return
    ended, team, thread = threading.Event(), set[Any](), main.ident
    most = len(active_children()) + getattr(executor, "workers", 0) + 1

    def watch() -> None:
        while not ended.wait(0.5):
            team.update(active_children())
            if len(team) > most or any(p.exitcode not in (None, 0, -signal.SIGTERM) for p in team):
                # Ctrl-C's signal would be ignored in what a shell started in the background.
                signal.pthread_kill(thread, signal.SIGUSR2)
                return

    def interrupt(*_: object) -> None:
        if not ended.is_set():
            raise _WorkerDied

    watcher, had = threading.Thread(target=watch, daemon=True), signal.signal(signal.SIGUSR2, interrupt)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        signal.signal(signal.SIGUSR2, had)
