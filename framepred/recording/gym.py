"""Record a Gymnasium environment as a video folder with actions."""

import contextlib
import importlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import write_text
from framepred.recording.narration import GameWatcher, Transition, narrate
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.sources.captions_csv import captions_path, write_captions
from framepred.sources.episode import Episode
from framepred.video.resize import fit_frames
from framepred.video.write import write_video

# A package registers its environments when it is imported.
_PROVIDERS = {
    "vizdoom": ("vizdoom.gymnasium_wrapper", "vizdoom"),
    "ale": ("ale_py", "atari"),
    "crafter": ("crafter", "crafter"),
    "carracing": ("gymnasium.envs.box2d", "box2d"),
}
_TARGET_FPS = 10.0


@dataclass(frozen=True)
class Recording:
    """How to record: `size` (height, width) in pixels, `frame_skip` None for about 10 frames a second.

    `sticky` is the probability that the random policy repeats its last action. `actions_of` names
    another environment whose action ids are written: actions are matched by name, others not taken.
    """

    env: str
    episodes: int = 10
    steps: int = 300
    size: tuple[int, int] = (64, 64)
    frame_skip: int | None = None
    seed: int = 0
    sticky: float = 0.75
    actions_of: str | None = None


def record(recording: Recording, out: str | os.PathLike[str]) -> Iterator[Path]:
    """Play episodes and write each as lossless NAME.mp4 and NAME.actions.csv, yielding its path.

    A VizDoom game gets captions too, NAME.captions.csv.
    Episode i is a function of (env, seed + i): one that is already there is left as it is. Raises FramepredError
    where such a one was recorded in another way.
    """
    folder = Path(out)
    env, skip = _make(recording.env, recording.frame_skip)
    with _closing(env):
        choices = _choices(env, recording)
        _require_flat_actions(env, recording.env)
        stem = recording.env.replace("/", "-").split(":")[-1]
        seeds = range(recording.seed, recording.seed + recording.episodes)
        paths = [folder / f"{stem}-{seed:06d}.mp4" for seed in seeds]
        about = vars(recording) | {"frame_skip": skip, "actions": _action_names(env)}
        if any(path.exists() for path in paths):
            _require_same(folder, about)
        write_text(folder / "recording.json", json.dumps(about, indent=1) + "\n")
        for seed, path in zip(seeds, paths, strict=True):
            if not path.exists():
                episode, transitions = _play(env, recording, choices, skip, seed, path.stem)
                if episode.actions is not None and len(episode.actions):
                    write_actions(actions_path(path), episode.actions, episode.action_names)
                if transitions:
                    write_captions(captions_path(path), narrate(recording.env, transitions, episode.fps))
                write_video(path, episode.frames, episode.fps, lossless=True)
            yield path


def _require_same(folder: Path, about: dict[str, Any]) -> None:
    """Raise FramepredError where the folder's episodes of this environment were recorded in another way."""
    try:
        old = json.loads((folder / "recording.json").read_text())
    except (OSError, ValueError):
        return
    new = json.loads(json.dumps(about))
    for key in ("steps", "size", "frame_skip", "sticky", "actions_of"):
        if old.get("env") == new["env"] and old.get(key) != new[key]:
            raise FramepredError(
                f"{folder} holds episodes of {new['env']} recorded with {key} {old.get(key)}, not {new[key]}: "
                "give another -o, or the same again"
            )


@contextlib.contextmanager
def _closing(env: Any) -> Iterator[None]:
    """Close an environment at the end, and remove what ViZDoom leaves in the working directory."""
    game = getattr(env.unwrapped, "game", None)
    with tempfile.TemporaryDirectory() as scratch:
        if game is not None and hasattr(game, "set_doom_config_path"):
            game.set_doom_config_path(f"{scratch}/vizdoom.ini")
        try:
            yield
        finally:
            env.close()
            with contextlib.suppress(OSError):
                Path("_vizdoom").rmdir()


def _make(name: str, frame_skip: int | None) -> tuple[Any, int]:
    """Make the environment; return it and its frame skip."""
    prefix = next((p for p in _PROVIDERS if name.lower().startswith(p)), None)
    try:
        import gymnasium
    except ImportError as error:
        extra = "gym" if prefix is None else _PROVIDERS[prefix][1]
        raise FramepredError(f"recording {name} needs gymnasium: pip install 'framepred[{extra}]'") from error
    if prefix is not None:
        module, extra = _PROVIDERS[prefix]
        try:
            importlib.import_module(module)
        except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
            raise FramepredError(f"{name} needs an extra package: pip install 'framepred[{extra}]'") from error
    if prefix == "crafter":
        return _Crafter(), frame_skip or 1
    try:
        spec = gymnasium.spec(name)
        fps = _fps(gymnasium.make(name)) if frame_skip is None else None
        skip = frame_skip if frame_skip is not None else max(1, round(fps / _TARGET_FPS)) if fps else 1
        if prefix == "vizdoom":
            return gymnasium.make(name, frame_skip=skip, max_episode_steps=None), skip
        return gymnasium.make(spec, render_mode="rgb_array"), skip
    except (gymnasium.error.Error, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise FramepredError(f"cannot make environment {name!r} ({reason}): give an installed Gymnasium id") from error


def _fps(env: Any) -> float | None:
    with contextlib.closing(env):
        fps = env.metadata.get("render_fps")
    return float(fps) if fps else None


class _Crafter:
    """Crafter's environment, whose interface is older than Gymnasium's."""

    def __init__(self) -> None:
        import crafter
        import gymnasium

        self._crafter = crafter
        self._env: Any = crafter.Env()
        self.metadata: dict[str, Any] = {}
        self.action_space = gymnasium.spaces.Discrete(len(crafter.constants.actions))
        self.unwrapped = self

    def get_action_meanings(self) -> list[str]:
        return list(self._crafter.constants.actions)

    def reset(self, seed: int) -> tuple[Any, dict[str, Any]]:
        self._env = self._crafter.Env(seed=seed)
        return self._env.reset(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        frame, reward, done, info = self._env.step(action)
        return frame, reward, done, False, info

    def close(self) -> None:
        pass


def _require_flat_actions(env: Any, name: str) -> None:
    from gymnasium import spaces

    if not isinstance(env.action_space, (spaces.Discrete, spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        raise FramepredError(
            f"environment {name} has actions of {env.action_space}: choose one with discrete or continuous actions"
        )


def _is_rgb(picture: Any) -> TypeGuard["np.ndarray[Any, Any]"]:
    return isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3


def _frame(env: Any, observation: Any, size: tuple[int, int]) -> Tensor:
    picture = observation.get("screen") if isinstance(observation, dict) else observation
    if not _is_rgb(picture):
        picture = env.render()
    if not _is_rgb(picture):
        raise FramepredError(f"{env} shows no RGB picture: choose an environment with rgb_array rendering")
    return fit_frames(torch.from_numpy(picture.copy()).permute(2, 0, 1)[None], size)[0]


def _play(
    env: Any, recording: Recording, choices: dict[int, int] | None, skip: int, seed: int, name: str
) -> tuple[Episode, list[Transition]]:  # fmt: skip
    policy = np.random.default_rng(seed)
    env.action_space.seed(seed)
    observation, _ = env.reset(seed=seed)
    frames = [_frame(env, observation, recording.size)]
    actions: list[Any] = []
    action: Any = None
    game = getattr(env.unwrapped, "game", None)
    watcher = GameWatcher(game) if hasattr(game, "get_game_variable") else None
    transitions: list[Transition] = []
    names = _action_names(env)
    # VizDoom skips frames inside its engine, four times as fast as stepping through them.
    repeats = 1 if hasattr(env.unwrapped, "frame_skip") else skip
    for _ in range(recording.steps):
        if action is None or policy.random() >= recording.sticky:
            action = env.action_space.sample() if choices is None else int(policy.choice(list(choices)))
        ended = False
        for _ in range(repeats):
            observation, _, terminated, truncated, _ = env.step(action)
            ended = terminated or truncated
            if ended:
                break
        # The last frame of a VizDoom episode is black: no result of an action.
        if ended and watcher:
            break
        if watcher:
            transitions.append(watcher.after(names[action] if names else None))
        actions.append(action if choices is None else choices[action])
        frames.append(_frame(env, observation, recording.size))
        if ended:
            break
    fps = float(env.metadata.get("render_fps") or _TARGET_FPS * skip) / skip
    taken = _as_tensor(actions)
    times = torch.arange(len(frames), dtype=torch.float64) / fps
    return Episode(name, torch.stack(frames), times, fps, taken, _columns(taken)), transitions


def _as_tensor(actions: list[Any]) -> Tensor:
    if not actions:
        return torch.empty(0, dtype=torch.int64)
    values = np.asarray(actions)
    if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.astype(np.float32).reshape(len(actions), -1))


def _action_names(env: Any) -> list[str] | None:
    """Return the names of an environment's discrete actions, where it knows them."""
    game = getattr(env.unwrapped, "game", None)
    if game is not None and hasattr(env.unwrapped, "button_map"):
        buttons = [button.name for button in game.get_available_buttons()]
        return [
            "+".join(b for b, on in zip(buttons, row, strict=True) if on) or "NOOP" for row in env.unwrapped.button_map
        ]
    if hasattr(env.unwrapped, "get_action_meanings"):
        return list(env.unwrapped.get_action_meanings())
    return None


def _choices(env: Any, recording: Recording) -> dict[int, int] | None:
    """Map this environment's action ids to those of `actions_of`, by name; None where ids stay."""
    if recording.actions_of is None:
        return None
    other, _ = _make(recording.actions_of, recording.frame_skip)
    with contextlib.closing(other):
        mine, theirs = _action_names(env), _action_names(other)
    if mine is None or theirs is None:
        raise FramepredError(f"{recording.env} or {recording.actions_of} does not name its actions: drop --actions-of")
    choices = {i: theirs.index(name) for i, name in enumerate(mine) if name in theirs}
    if not choices:
        raise FramepredError(f"{recording.env} and {recording.actions_of} share no action: {mine} against {theirs}")
    return choices


def _columns(actions: Tensor) -> tuple[str, ...]:
    """Return the header of an actions file: an environment names its discrete actions, never its dimensions."""
    return ("action",) if actions.ndim == 1 else tuple(f"action_{d}" for d in range(actions.shape[1]))
