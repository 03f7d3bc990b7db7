"""A run and what it begins from → a game."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from framepred.errors import FramepredError, FramepredWarning
from framepred.play.controls import controls_of
from framepred.play.game import Game
from framepred.play.scene import ClipStage, EnvironmentStage, Stage
from framepred.recording.environment import open_environment
from framepred.sources.find import find_episode
from framepred.video.clock import same_rate
from framepred.world.device import choose_device
from framepred.world.run import load_run

START = "start.mp4"
"""The clip in a run's folder that a game begins from where none is given."""


@contextmanager
def open_game(
    model: str, clip: str | Path | None = None, env: str | None = None, context: int = 4, device: str = "auto"
) -> Iterator[Game]:
    """Load a run and begin a game: from a clip, from an environment, or from the run's own start.

    The environment is closed at the end. Raises FramepredError for what does not fit together.
    """
    if clip is not None and env is not None:
        raise FramepredError(f"a game begins from one thing, not from {clip} and {env}: give --clip or --env")
    run = load_run(model, choose_device(device))
    with ExitStack() as stack:
        stage: Stage
        if env is not None:
            played = stack.enter_context(open_environment(env, run.tokenizer.frame_size))
            if not same_rate(played.fps, run.fps):
                message = f"{env} shows {played.fps:g} frames a second, the run knows {run.fps:g}: they drift apart"
                warnings.warn(FramepredWarning(message), stacklevel=2)
            controls = controls_of(run.layout.actions, played.action_names)
            stage = EnvironmentStage(played, controls, run.layout.actions, context)
        else:
            file = clip or run.path / START
            if clip is None and not Path(file).is_file():
                raise FramepredError(f"the run {model} has no {START} to begin from: give --clip FILE or --env ENV")
            controls = controls_of(run.layout.actions)
            stage = ClipStage(find_episode(file), run, context)
        yield Game(run, controls, stage)
