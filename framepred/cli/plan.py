"""`framepred plan`: actions that reach a goal."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import print_json, say, track
from framepred.cli.group import cli
from framepred.errors import FramepredError


@cli.command()
@click.argument("video", required=False, type=click.Path(path_type=Path))
@options.MODEL
@options.out("Film of the plan, .mp4 or .mkv; its actions come beside it.  [default: NAME-plan.mp4 here, numbered]")
@click.option("--goal", type=click.Path(path_type=Path), help="A picture of the run's size, or a video.")
@click.option("--goal-frame", type=click.IntRange(0), help="The goal is this frame of --goal, or of VIDEO.")
@click.option("--goal-steps", type=click.IntRange(1), help="The goal is what a random policy of --env reaches then.")
@click.option("--env", metavar="ENV", help="Start in this Gymnasium environment and follow the plans there.")
@click.option("--budget", default=32, show_default=True, type=click.IntRange(1), help="Most steps taken in --env.")
@click.option("--replan", default=4, show_default=True, help="Steps taken in --env before the next plan.")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="First given frame of VIDEO.")
@click.option("--context", default=4, show_default=True, type=click.IntRange(1), help="Frames that are given.")
@options.ACTIONS
@click.option("--horizon", default=8, show_default=True, help="Actions of a plan.")
@click.option("--candidates", default=16, show_default=True, help="Sequences of actions that a round imagines.")
@click.option("--rounds", default=2, show_default=True, help="1 is random shooting, more the cross-entropy method.")
@click.option("--distance", default="pixels", show_default=True, type=click.Choice(["pixels", "features"]))
@click.option("--temperature", default=0.0, show_default=True, help="Of imagined tokens; 0 is greedy.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of the search, and of --env.")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def plan(
    video: Path | None, model: str, out: Path | None, env: str | None, device: str, overwrite: bool, as_json: bool,
    **values: Any,
) -> None:  # fmt: skip
    """Find actions that reach a goal, in imagination; with --env, take them and see.

    Without --env the plan starts after frames of VIDEO, and the film shows what is imagined. With it the film shows
    what really happened.

    \b
    Examples:
      # actions that lead from the first frames to frame 12
      framepred plan clip.mp4 --goal-frame 12
      # what a random policy reaches after 8 steps, in the real game
      framepred plan --env VizdoomMyWayHome-v1 --seed 5001 --goal-steps 8
    """
    from framepred.planning.plan import write_plan

    if (video is None) == (env is None):
        raise FramepredError("a plan starts in one place: give a VIDEO or --env ENV")
    name = video.stem if video is not None else str(env).replace("/", "-").split(":")[-1]
    default = Path(f"{name}-plan.mp4")
    out = out or (default if overwrite else options.numbered(default))
    _check_output(out, overwrite, video, values["goal"], values["actions"])
    planned = _make(video, model, env, device, values)
    write_plan(planned, out)
    summary = planned.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    reached = {True: "reached", False: "not reached", None: "imagined"}[summary["reached"]]
    far = f"distance to the goal {summary['distance'][-1]:.3f}, expected {summary['expected_distance'][-1]:.3f}"
    say(f"{reached} after {summary['steps']} steps: {far}; {summary['seconds_a_plan']:.1f} s a plan")
    click.echo(str(out))


def _check_output(out: Path, overwrite: bool, *inputs: str | Path | None) -> None:
    from framepred.sources.actions_csv import actions_path

    if out.suffix.lower() not in (".mp4", ".mkv"):
        raise FramepredError(f"output {out}: unknown ending {out.suffix!r}; give .mp4 or .mkv")
    own = actions_path(inputs[0]) if inputs[0] is not None else None
    for path in (out, actions_path(out)):
        options.check_file_output(path, overwrite, *inputs, own)


def _make(video: Path | None, model: str, env: str | None, device: str, values: dict[str, Any]) -> Any:
    from framepred.planning.plan import plan_after, plan_in_environment, start_in_clip
    from framepred.planning.protocol import GoalProtocol
    from framepred.planning.search import Search
    from framepred.sources.find import find_episode
    from framepred.world.device import choose_device
    from framepred.world.run import load_run

    keys = ("horizon", "candidates", "rounds", "distance", "replan", "temperature", "seed")
    search, run = Search(**{key: values[key] for key in keys}), load_run(model, choose_device(device))
    # Frames that actions are given for are counted as they are, and so is the goal among them.
    own = values["actions"] not in (None, "none")
    goal = _goal(run, values["goal"], values["goal_frame"], values["goal_steps"], video, own)
    if env is not None:
        protocol = GoalProtocol(env=env, first_seed=values["seed"], context=values["context"], search=search)
        budget = values["budget"]
        return plan_in_environment(run, protocol, values["goal_steps"], goal, budget, _steps_bar(budget))
    assert video is not None and goal is not None
    frames, known = start_in_clip(run, video, values["actions"], values["start"], values["context"])
    fps = run.fps if known is None else find_episode(video).info().fps
    return plan_after(run, frames, known, goal, search, fps)


def _steps_bar(budget: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    count = iter(range(1, budget + 1))
    return lambda steps: track(steps, lambda step: ((n := next(count)) / budget, f"step {n} of at most {budget}"))


def _goal(
    run: Any, goal: Path | None, frame: int | None, steps: int | None, video: Path | None, own_frames: bool
) -> Any:
    """Return the picture of the goal, None where it is what a random policy reaches."""
    from framepred.planning.plan import frame_range
    from framepred.sources.find import find_episode
    from framepred.world.goal import goal_picture

    if steps is not None:
        if goal is not None or frame is not None or video is not None:
            raise FramepredError("--goal-steps sets a goal in --env: give it without --goal, --goal-frame and VIDEO")
        return None
    if frame is not None:
        film = goal or video
        if film is None:
            raise FramepredError(f"--goal-frame {frame} is a frame of a video: give that as --goal")
        return frame_range(run, find_episode(film), frame, frame + 1, own_frames and film == video)[0]
    if goal is None:
        raise FramepredError("a plan needs a goal: give --goal PICTURE, --goal-frame N, or --goal-steps K with --env")
    return goal_picture(goal, run.tokenizer.frame_size)
