"""`framepred record`: a Gymnasium environment → a video folder with actions."""

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, say_next
from framepred.cli.group import cli
from framepred.cli.stopped import saying_what_is_saved
from framepred.io.outputs import replacing


@cli.command(
    sections={
        "What is played": ("episodes", "steps", "seed", "sticky"),
        "What is written": ("size", "frame_skip", "actions_of"),
    }
)
@click.argument("env")
@options.out("Folder to record into.", required=True)
@click.option("--episodes", default=10, show_default=True, type=click.IntRange(1), help="Episodes to play.")
@click.option("--steps", default=300, show_default=True, type=click.IntRange(1), help="Most steps an episode.")
@click.option(
    "--size", default="64", show_default=True, callback=options.frame_size, help="Side, or HEIGHTxWIDTH, in pixels."
)
@click.option(
    "--frame-skip", type=click.IntRange(1, 100), help="Environment steps a frame.  [default: about 10 frames a second]"
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Episode i plays with seed + i.")
@click.option(
    "--sticky",
    default=0.75,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Chance that the random policy repeats its action.",
)
@click.option("--actions-of", metavar="ENV", help="Write the action ids of this environment, matched by name.")
@options.OVERWRITE
@options.JSON
def record(env: str, out: Path, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Record a Gymnasium environment as a video folder with actions (lossless).

    \b
    Examples:
      framepred record VizdoomMyWayHome-v1 -o videos --episodes 20
      # other episodes, to evaluate on
      framepred record Crafter -o held-out --episodes 4 --seed 5000
    """
    from framepred.recording.gym import Recording
    from framepred.recording.gym import record as run_recording

    recording = Recording(env, **values)
    paths: list[Path] = []

    def describe(path: Path) -> tuple[float, str]:
        paths.append(out / path.name)
        return len(paths) / recording.episodes, f"{len(paths)} of {recording.episodes} episodes, {path.name}"

    place = replacing(out, overwrite, keep=["*.mp4"], job=repr(recording), resume=overwrite)
    with (
        saying_what_is_saved(out, place, lambda _: f"{len(paths)} episodes" if paths else "") as folder,
        closing(run_recording(recording, folder)) as episodes,
    ):
        consume(episodes, describe)
    if as_json:
        print_json({"path": str(out), "episodes": [str(p) for p in paths]})
    else:
        click.echo(f"{out}: {len(paths)} episodes")
        say_next("train", out, "-o", "run", "--minutes", 30)
