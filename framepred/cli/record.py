"""`framepred record`: a Gymnasium environment → a video folder with actions."""

from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, say_next
from framepred.cli.group import cli
from framepred.cli.stopped import saying_what_is_saved
from framepred.errors import FramepredError
from framepred.io.outputs import replacing


@cli.command(
    sections={
        "What is played": ("episodes", "steps", "seed", "policy", "sticky", "model", "device"),
        "What is written": ("size", "fit", "frame_skip", "actions_of", "form"),
    }
)
@click.argument("env")
@options.out("Folder to record into.", required=True)
@click.option("--episodes", default=10, show_default=True, type=click.IntRange(1), help="Episodes to play.")
@click.option("--steps", default=300, show_default=True, type=click.IntRange(1), help="Most steps an episode.")
@click.option(
    "--size", default="64", show_default=True, callback=options.frame_size, help="Side, or HEIGHTxWIDTH, in pixels."
)
@options.fit("crop")
@click.option(
    "--frame-skip", type=click.IntRange(1, 100), help="Environment steps a frame.  [default: about 10 frames a second]"
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Episode i plays with seed + i.")
@click.option(
    "--policy",
    default="sticky",
    show_default=True,
    metavar="NAME",
    help="Who plays: sticky, random, curious (needs --model), or one that was installed.",
)
@click.option(
    "--sticky", type=click.FloatRange(0, 1), help="Chance that sticky repeats its last action.  [default: 0.75]"
)
@click.option("--model", metavar="RUN", help="What the policy asks: a run folder, a name in the zoo, hf://OWNER/NAME.")
@options.DEVICE
@click.option("--actions-of", metavar="ENV", help="Write the action ids of this environment, matched by name.")
@click.option(
    "--format", "form", default="folder", show_default=True, type=click.Choice(["folder", "lerobot"]),
    help="Videos with actions beside, or a LeRobot dataset (v3.0).",
)  # fmt: skip
@options.OVERWRITE
@options.JSON
def record(
    env: str,
    out: Path,
    size: tuple[int, int],
    fit: Any,
    model: str | None,
    device: str,
    form: str,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Record a Gymnasium environment as a video folder with actions, or as a LeRobot dataset (lossless).

    \b
    Examples:
      framepred record VizdoomMyWayHome-v1 -o videos --episodes 20
      # other episodes, to evaluate on
      framepred record Crafter -o held-out --episodes 4 --seed 5000
      framepred record CarRacing-v3 -o set --format lerobot
      # towards what a run predicts badly
      framepred record VizdoomMyWayHome-v1 -o new --policy curious --model doom-64
    """
    from framepred.config.frame_size import FrameSize
    from framepred.recording.gym import Recording
    from framepred.recording.gym import record as run_recording

    chosen = {name: value for name, value in values.items() if value is not None}
    recording = Recording(env, size=FrameSize(size, fit or "crop"), **chosen)
    if values["sticky"] is not None and recording.policy != "sticky":
        raise FramepredError(
            f"--sticky {recording.sticky} is for --policy sticky, not {recording.policy}: leave it out"
        )
    run = _load(model, device, recording.policy)
    paths: list[Path] = []

    def describe(path: Path) -> tuple[float, str]:
        paths.append(out / path.name)
        return len(paths) / recording.episodes, f"{len(paths)} of {recording.episodes} episodes, {path.name}"

    if form == "lerobot":
        _record_lerobot(recording, run, out, overwrite, describe)
        _show(out, paths, as_json, f"lerobot:{out}")
        return
    place = replacing(out, overwrite, keep=["*.mp4"], job=repr((recording, model)), resume=overwrite)
    with (
        saying_what_is_saved(
            out, place, lambda _: f"{len(paths)} {'episode' if len(paths) == 1 else 'episodes'}" if paths else ""
        ) as folder,
        closing(run_recording(recording, folder, run)) as episodes,
    ):
        consume(episodes, describe)
    _show(out, paths, as_json, str(out))


def _load(model: str | None, device: str, policy: str) -> Any:
    """Load the run that a policy asks; None where none is given."""
    if model is None:
        return None
    if policy in ("sticky", "random"):
        raise FramepredError(f"--model {model} is for a policy that asks a run, not {policy}: give --policy curious")
    from framepred.world.device import choose_device
    from framepred.world.run import load_run

    return load_run(model, choose_device(device))


def _show(out: Path, paths: list[Path], as_json: bool, source: str) -> None:
    if as_json:
        print_json({"path": str(out), "episodes": [str(p) for p in paths]})
    else:
        click.echo(f"{out}: {len(paths)} episodes")
        say_next("train", source, "-o", "run", "--minutes", 30)


def _record_lerobot(recording: Any, run: Any, out: Path, overwrite: bool, describe: Any) -> None:
    """Record a video folder that nobody sees, and write it as a dataset; nothing is left of one that is stopped."""
    from framepred.recording.gym import record as run_recording
    from framepred.sources.find import find_episodes
    from framepred.sources.lerobot_write import write_lerobot

    if overwrite or out.exists():
        raise FramepredError(f"{out}: a LeRobot dataset is written anew, into a folder that does not exist")
    with TemporaryDirectory() as folder, closing(run_recording(recording, Path(folder), run)) as episodes:
        consume(episodes, describe)
        consume(write_lerobot(find_episodes([folder]), out))
