"""The worlds that train_world trains, and their episodes, played by many processes straight into memory."""

import multiprocessing as mp
import os
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.config.action_names import ActionNames
from framepred.recording.environment import Environment, open_environment

HAS_FFMPEG = find_spec("av") is not None
"""Whether videos can be written here."""
# A lent GPU has neither FFmpeg nor pygame; they are imported by what is imported here, and not used by it.
for _name in ("av", "pygame"):
    if find_spec(_name) is None:
        sys.modules[_name] = module_from_spec(ModuleSpec(_name, None))


@dataclass(frozen=True)
class World:
    """An environment, how many of its steps a frame shows, frames a second, the first frame that counts, actions."""

    env: str
    frame_skip: int
    fps: float
    start: int = 0
    names: tuple[str, ...] = ("action",)


_BUTTONS = "NOOP", "MOVE_RIGHT", "MOVE_LEFT", "MOVE_FORWARD", "TURN_RIGHT", "TURN_LEFT"
WORLDS = {
    "doom-64": World("VizdoomMyWayHome-v1", 4, 8.75, 0, ActionNames(("action",), _BUTTONS)),
    "crafter-64": World("Crafter", 1, 10.0),
    # CarRacing zooms in during its first second.
    "racing-64": World("CarRacing-v3", 5, 10.0, 12, ("steer", "gas", "brake")),
}


@dataclass(frozen=True)
class Played:
    """Episodes end to end: frames uint8 (N, 3, H, W), actions int64 (N,) or float32 (N, D), `lengths` of the episodes.

    The action after an episode's last frame is 0 and leads nowhere.
    """

    frames: Tensor
    actions: Tensor
    lengths: tuple[int, ...]

    def episodes(self) -> list[tuple[Tensor, Tensor]]:
        """Return the frames (T, 3, H, W) and the T - 1 actions of each episode."""
        parts = zip(self.frames.split(self.lengths), self.actions.split(self.lengths), strict=True)
        return [(frames, actions[:-1]) for frames, actions in parts]


def _drawn(env: Environment, world: World, policy: np.random.Generator) -> Any:
    """Draw a random action; a car that brakes as often as it drives would stand still."""
    if world.names != WORLDS["racing-64"].names:
        return env.action_space.sample()
    brake = policy.random() if policy.random() < 0.15 else 0.0
    return np.array([policy.uniform(-1, 1), policy.uniform(0, 0.6), brake], np.float32)


def play(
    env: Environment, world: World, seed: int, steps: int, sticky: float
) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Play one episode → frames uint8 (T, 3, H, W) and actions (T, …), of which the last is 0."""
    policy = np.random.default_rng(seed)
    env.action_space.seed(seed)
    frames, actions, action = [env.reset(seed)], list[Any](), None
    for _ in range(steps):
        if action is None or policy.random() >= sticky:
            action = _drawn(env, world, policy)
        frame, ended = env.step(action)
        if frame is None:
            break
        frames.append(frame)
        actions.append(action)
        if ended:
            break
    discrete = np.asarray(actions or [0]).ndim == 1
    taken = np.asarray([*actions, 0 if discrete else np.zeros_like(actions[0])])
    return torch.stack(frames).numpy(), taken.astype(np.int64 if discrete else np.float32)


def _work(task: tuple[str, str, tuple[int, int], int, int, int, float]) -> int:
    name, folder, size, seed, episodes, steps, sticky = task
    # A game leaves files where it runs.
    os.chdir(folder)
    world = WORLDS[name]
    with open_environment(world.env, size, world.frame_skip) as env:
        parts = [play(env, world, seed + i, steps, sticky) for i in range(episodes)]
    frames, actions = (np.concatenate(rows) for rows in zip(*parts, strict=True))
    np.savez(f"{folder}/{seed:08d}.npz", frames=frames, actions=actions, lengths=np.array([len(f) for f, _ in parts]))
    return len(frames)


def record(
    name: str, folder: Path, size: tuple[int, int], seed: int, episodes: int, steps: int, sticky: float, processes: int
) -> int:
    """Play episodes of the given seeds on; return the number of frames that lie in the folder's .npz files."""
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, min(20, episodes // processes))
    tasks = [
        (name, str(folder.resolve()), size, s, min(each, seed + episodes - s), steps, sticky)
        for s in range(seed, seed + episodes, each)
    ]
    with mp.get_context("spawn").Pool(processes) as pool:
        return sum(pool.imap_unordered(_work, tasks))


def load(folder: Path, start: int = 0) -> Played:
    """Return all episodes of a folder's .npz files, from their frame `start` on, in the order of their seeds."""
    parts = [np.load(file) for file in sorted(folder.glob("*.npz"))]
    frames, actions, lengths = (
        np.concatenate([part[key] for part in parts]) for key in ("frames", "actions", "lengths")
    )
    if start:
        kept = np.concatenate([np.arange(n) >= start for n in lengths])
        frames, actions, lengths = frames[kept], actions[kept], np.maximum(lengths - start, 0)
    whole = [n for n in lengths.tolist() if n]
    return Played(torch.from_numpy(frames), torch.from_numpy(actions), tuple(whole))
