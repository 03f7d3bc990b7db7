"""Frames and actions of a Gymnasium environment, played by many processes straight into memory."""

import multiprocessing as mp
import os
from pathlib import Path
from typing import Any

import numpy as np


def _weights(source: int, target: int) -> "np.ndarray[Any, Any]":
    """Return the antialiased bilinear weights (target, source) that `fit_frames` scales by."""
    scale = source / target
    centre = (np.arange(target) + 0.5) * scale
    weight = np.maximum(0, 1 - np.abs(np.arange(source) + 0.5 - centre[:, None]) / max(scale, 1))
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


class Scaler:
    """Scales pictures (H, W, 3) to cover (h, w) and crops the centre, as `fit_frames` does, but fast."""

    def __init__(self, shape: tuple[int, int], size: tuple[int, int]) -> None:
        scale = max(size[0] / shape[0], size[1] / shape[1])
        cover = [max(t, round(s * scale)) for s, t in zip(shape, size, strict=True)]
        self.rows, self.columns = (
            _weights(s, c)[round((c - t) / 2) :][:t] for s, c, t in zip(shape, cover, size, strict=True)
        )
        self.size = size

    def __call__(self, picture: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
        height, width, _ = picture.shape
        down = (self.rows @ picture.reshape(height, -1).astype(np.float32)).reshape(-1, width, 3)
        out = np.einsum("wv,hvc->chw", self.columns, down, optimize=True)
        return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def play(make: Any, seed: int, steps: int, sticky: float, size: tuple[int, int]) -> tuple[Any, Any]:
    """Play one episode as `framepred record` does → frames uint8 (T, 3, H, W) and T - 1 actions."""
    env = make()
    policy = np.random.default_rng(seed)
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    picture = observation["screen"] if isinstance(observation, dict) else observation
    scaler = Scaler(picture.shape[:2], size)
    frames, actions, action = [scaler(picture)], [], None
    for _ in range(steps):
        if action is None or policy.random() >= sticky:
            action = env.action_space.sample()
        observation, _, terminated, truncated, _ = env.step(action)
        # A VizDoom episode that ends shows a black frame: nothing that an action led to.
        if terminated or truncated:
            break
        picture = observation["screen"] if isinstance(observation, dict) else observation
        frames.append(scaler(picture))
        actions.append(action)
    return np.stack(frames), np.array(actions, dtype=np.int64)


_ENV: list[Any] = []


def _make() -> Any:
    if not _ENV:
        import gymnasium
        import vizdoom.gymnasium_wrapper  # noqa: F401

        _ENV.append(gymnasium.make("VizdoomMyWayHome-v1", frame_skip=4, max_episode_steps=None))
    return _ENV[0]


def _work(task: tuple[str, int, int, int, float]) -> int:
    folder, seed, episodes, steps, sticky = task
    os.chdir(folder)
    parts = [play(_make, seed + i, steps, sticky, (64, 64)) for i in range(episodes)]
    frames = np.concatenate([f for f, _ in parts])
    # The last frame of an episode leads nowhere: its action is 0 and never read.
    actions = np.concatenate([np.append(a, 0) for _, a in parts])
    np.savez(f"{folder}/{seed:08d}.npz", frames=frames, actions=actions, lengths=np.array([len(f) for f, _ in parts]))
    return len(frames)


def record(folder: Path, seed: int, episodes: int, steps: int, sticky: float, processes: int) -> int:
    """Play episodes of the given seeds on; return the number of frames that lie in the folder's .npz files."""
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, min(20, episodes // processes))
    tasks = [
        (str(folder), s, min(each, seed + episodes - s), steps, sticky) for s in range(seed, seed + episodes, each)
    ]
    with mp.get_context("spawn").Pool(processes) as pool:
        return sum(pool.imap_unordered(_work, tasks))


def load(folder: Path) -> tuple[Any, Any, Any]:
    """Return all frames uint8 (N, 3, H, W), actions int64 (N,) and the episodes' lengths (E,)."""
    parts = [np.load(file) for file in sorted(folder.glob("*.npz"))]
    return tuple(np.concatenate([part[name] for part in parts]) for name in ("frames", "actions", "lengths"))
