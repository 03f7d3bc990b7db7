"""`framepred surprise`: where a video differs from what a run predicts."""

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
@click.option("--inverse", is_flag=True, help="Also tell which action each frame looks like the result of (slower).")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def surprise(video: Path, out: Path | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Show when and where a video differs from what the run predicts.

    The model predicts each frame from the real frames and actions before it; a frame it gave a low
    probability is surprising.
    """
    from framepred.evaluation.surprise.surprise import measure_surprise, write_surprise

    out = out or Path(f"{video.stem}-surprise.mp4")
    options.check_video_output(out, overwrite)
    found = measure_surprise(video, watch=_frames_bar, **values)
    write_surprise(found, out)
    summary = found.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    say(f"surprise {sparkline(summary['surprise'])}")
    say(f"entropy  {sparkline(summary['entropy'])}")
    baseline = f"{summary['baseline']}, {summary['baseline_frames']} frames"
    say(f"surprise is in robust standard deviations above the median of {baseline}")
    rows = [
        (str(t), f"{t / found.fps:.2f}", *(f"{summary[k][t]:.2f}" for k in ("surprise", "nll", "entropy")))
        for t in found.events()[:10]
    ]
    title = f"{video.name}: {len(found.events())} surprising moments in {summary['frames']} frames"
    print_table(("frame", "second", "surprise", "NLL, nats a token", "entropy"), rows, title)
    if found.taken is not None:
        # Another action is e^3, 20 times, as likely.
        against = [t for t, action in enumerate(found.taken, 1) if action.odds > 3]
        click.echo(f"frames that look like the result of another action: {', '.join(map(str, against)) or 'none'}")
    click.echo(str(out))


def _frames_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    return track(items, lambda item: (item[0] / total, f"frame {item[0]} of {total}"))
