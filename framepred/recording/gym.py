"""Record a Gymnasium environment as a video folder with actions."""

import json
import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError
from framepred.io.atomic import write_text
from framepred.io.files import file_sha256
from framepred.recording.environment import Environment, open_environment
from framepred.recording.narration import GameWatcher, Transition, narrate
from framepred.recording.policy import Policy, Setup, find_policy
from framepred.sources.actions_csv import actions_path, write_actions
from framepred.sources.captions_csv import Caption, captions_path, write_captions
from framepred.sources.episode import Episode
from framepred.video.write import write_video
from framepred.world.run import Run, weights_file

_SAME = ("policy", "model_sha256", "steps", "size", "fit", "frame_skip", "sticky", "actions_of")
"""What all episodes of an environment in a folder share."""
_BEFORE = {"policy": "sticky", "fit": "crop"}
"""What folders of framepred 0.1 do not say."""


@dataclass(frozen=True)
class Recording:
    """How to record: `size` (height, width) in pixels; a `FrameSize` says the fit too.

    `frame_skip` None is about 10 frames a second. `policy` says who plays (`find_policy`); `sticky` is the probability
    that the policy of that name repeats its last action. `actions_of` names another environment whose action ids are
    written: actions are matched by name, others not taken.
    """

    env: str
    episodes: int = 10
    steps: int = 300
    size: tuple[int, int] = (64, 64)
    frame_skip: int | None = None
    seed: int = 0
    sticky: float = 0.75
    actions_of: str | None = None
    policy: str = "sticky"


def record(recording: Recording, out: str | os.PathLike[str], run: Run | None = None) -> Generator[Path, None, None]:
    """Play episodes and write each as lossless NAME.mp4 and NAME.actions.csv, yielding its path.

    A VizDoom game gets captions too, NAME.captions.csv. The policy may ask a `run`.
    Episode i is a function of (env, policy, run, seed + i): one that is already there is left as it is. Raises
    FramepredError where such a one was recorded in another way.
    """
    folder, make_policy = Path(out), find_policy(recording.policy)
    with open_environment(recording.env, recording.size, recording.frame_skip) as env:
        choices, names = _choices(env, recording)
        stem = recording.env.replace("/", "-").split(":")[-1]
        seeds = range(recording.seed, recording.seed + recording.episodes)
        paths = [folder / f"{stem}-{seed:06d}.mp4" for seed in seeds]
        about = vars(recording) | {"frame_skip": env.frame_skip, "actions": env.action_names, "action_values": names}
        about["fit"] = fit_of(recording.size)
        about["sticky"] = recording.sticky if recording.policy == "sticky" else None
        about["model_sha256"] = None if run is None else file_sha256(weights_file(run.path))
        ids = None if choices is None else tuple(choices)
        setups = [Setup(env, seed, ids, recording.sticky, run) for seed in seeds]
        # What does not fit is refused before anything is written.
        make_policy(setups[0])
        if any(path.exists() for path in paths):
            _require_same(folder, about)
        write_text(folder / "recording.json", json.dumps(about, indent=1) + "\n")
        for setup, path in zip(setups, paths, strict=True):
            if not path.exists():
                episode, transitions = _play(setup, make_policy(setup), recording, choices, path.stem)
                _write(path, episode, narrate(recording.env, transitions, episode.fps) if transitions else [])
            yield path


def _write(path: Path, episode: Episode, captions: Sequence[Caption]) -> None:
    """Write an episode: its video comes last, and says that all of it is there."""
    try:
        if episode.actions is not None and len(episode.actions):
            write_actions(actions_path(path), episode.actions, episode.action_names)
        if captions:
            write_captions(captions_path(path), captions)
        write_video(path, episode.frames, episode.fps, lossless=True)
    except BaseException:
        if not path.exists():
            for file in (actions_path(path), captions_path(path)):
                file.unlink(missing_ok=True)
        raise


def _require_same(folder: Path, about: dict[str, Any]) -> None:
    """Raise FramepredError where the folder's episodes of this environment were recorded in another way."""
    try:
        old = json.loads((folder / "recording.json").read_text())
    except (OSError, ValueError):
        return
    new = json.loads(json.dumps(about))
    for key in _SAME:
        if old.get("env") == new["env"] and (was := old.get(key, _BEFORE.get(key))) != new[key]:
            raise FramepredError(
                f"{folder} holds episodes of {new['env']} recorded with {key} {was}, not {new[key]}: "
                "give another -o, or the same again"
            )


def _play(
    setup: Setup, policy: Policy, recording: Recording, choices: dict[int, int] | None, name: str
) -> tuple[Episode, list[Transition]]:
    env = setup.env
    env.action_space.seed(setup.seed)
    frames, taken = [env.reset(setup.seed)], list[Any]()
    watcher = GameWatcher(env.game) if env.game is not None else None
    transitions: list[Transition] = []
    names = env.action_names
    for _ in range(recording.steps):
        action = policy(frames, taken)
        if not env.action_space.contains(action) or (choices is not None and int(action) not in choices):
            allowed = env.action_space if choices is None else f"one of {list(choices)}"
            raise FramepredError(
                f"policy {recording.policy!r} took action {action}, {env.name} takes {allowed}: mend it"
            )
        frame, ended = env.step(action)
        if frame is None:
            break
        if watcher:
            transitions.append(watcher.after(names[action] if names else None))
        taken.append(action)
        frames.append(frame)
        if ended:
            break
    actions = _as_tensor(taken if choices is None else [choices[int(action)] for action in taken])
    times = torch.arange(len(frames), dtype=torch.float64) / env.fps
    return Episode(name, torch.stack(frames), times, env.fps, actions, _columns(actions, env.axes)), transitions


def _as_tensor(actions: list[Any]) -> Tensor:
    if not actions:
        return torch.empty(0, dtype=torch.int64)
    values = np.asarray(actions)
    if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
        return torch.from_numpy(values.astype(np.int64))
    return torch.from_numpy(values.astype(np.float32).reshape(len(actions), -1))


def _choices(env: Environment, recording: Recording) -> tuple[dict[int, int] | None, list[str] | None]:
    """Map this environment's action ids to those of `actions_of`, by name; None where ids stay.

    And return the names of the ids that are written, None where they are not known.
    """
    if recording.actions_of is None:
        return None, env.action_names
    with open_environment(recording.actions_of, recording.size, recording.frame_skip) as other:
        mine, theirs = env.action_names, other.action_names
    if mine is None or theirs is None:
        raise FramepredError(f"{recording.env} or {recording.actions_of} does not name its actions: drop --actions-of")
    choices = {i: theirs.index(name) for i, name in enumerate(mine) if name in theirs}
    if not choices:
        raise FramepredError(f"{recording.env} and {recording.actions_of} share no action: {mine} against {theirs}")
    return choices, theirs


def _columns(actions: Tensor, axes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the header of an actions file: the axes' names where they are known, else numbers."""
    if actions.ndim == 1:
        return ("action",)
    return axes or tuple(f"action_{d}" for d in range(actions.shape[1]))
