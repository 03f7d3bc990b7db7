"""`framepred surprise`: where a video is not what a run predicts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import print_json, print_table, say, sparkline, track
from framepred.cli.group import cli


@cli.command()
@options.VIDEO
@options.MODEL
@options.out(".mp4, .gif, .webp or .npz.  [default: NAME-surprise.mp4 here]")
@options.ACTIONS
@click.option(
    "--calibration", metavar="FILE|none", help="The run's baseline.  [default: RUN/calibration.json, if there]"
)
@click.option("--inverse", is_flag=True, help="Also ask of each frame which action it looks like (takes longer).")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def surprise(video: Path, out: Path | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Show when and where a video differs from what the run predicts.

    Each frame is compared with what the model expected of it, given the real frames and actions before.
    """
    from framepred.evaluation.surprise.surprise import measure_surprise, write_surprise

    out = out or Path(f"{video.stem}-surprise.mp4")
    options.check_video_output(out, overwrite)
    found = measure_surprise(video, watch=_scored_bar, **values)
    write_surprise(found, out)
    summary = found.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    say(f"surprise {sparkline(summary['surprise'])}")
    say(f"entropy  {sparkline(summary['entropy'])}")
    say(f"in deviations above the median of {summary['baseline']}, {summary['baseline_frames']} frames")
    rows = [
        (str(t), f"{t / found.fps:.2f}", *(f"{summary[k][t]:.2f}" for k in ("surprise", "nll", "entropy")))
        for t in found.events()[:10]
    ]
    title = f"{video.name}: {len(found.events())} surprising moments in {summary['frames']} frames"
    print_table(("frame", "second", "surprise", "nats a token", "entropy"), rows, title)
    if found.taken is not None:
        against = [t for t, answer in enumerate(found.taken, 1) if answer.odds > 3]
        click.echo(f"frames that look like another action: {', '.join(map(str, against)) or 'none'}")
    click.echo(str(out))


def _scored_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    return track(items, lambda item: (item[0] / total, f"frame {item[0]} of {total}"))
