"""`framepred surprise`: where a video differs from what a run predicts."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from framepred.cli import options
from framepred.cli.console import print_json, print_table, say, say_next, sparkline, tell, track
from framepred.cli.group import cli

if TYPE_CHECKING:
    from framepred.evaluation.surprise.surprise import Surprise

_SHOWN = 10


@cli.command()
@options.VIDEO
@options.MODEL
@options.out(".mp4, .gif, .webp or .npz.  [default: NAME-surprise.mp4 here, numbered]")
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

    \b
    Examples:
      # against the model that comes along
      framepred surprise clip.mp4
      # and which action each frame looks like
      framepred surprise clip.mp4 --model run --inverse -o heat.mp4
    """
    from framepred.evaluation.surprise.surprise import measure_surprise, write_surprise
    from framepred.sources.find import source_of

    default = Path(f"{video.stem}-surprise.mp4")
    out = out or (default if overwrite else options.numbered(default))
    options.check_video_output(out, overwrite, video, values["actions"], values["calibration"])
    found = measure_surprise(video, watch=_frames_bar, **values)
    write_surprise(found, out)
    summary = found.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    _show_moments(found, summary)
    click.echo(str(out))
    if found.calibration:
        say_next("eval", source_of(video), "--model", values["model"])
    else:
        say_next("calibrate", "HELD-OUT-VIDEOS", "--model", values["model"])


def _show_moments(found: "Surprise", summary: dict[str, Any]) -> None:
    """Write the curves, and the moments that were not expected: sure and wrong first, then unsure."""
    from framepred.evaluation.surprise.heatmap import WORDS
    from framepred.evaluation.terms import SURPRISE

    say(f"surprise {sparkline(summary['surprise'])}")
    say(f"entropy  {sparkline(summary['entropy'])}")
    wrong, unsure = found.events(), found.events("unsure")
    rows = [
        (
            WORDS[verdict],
            str(t),
            f"{summary['seconds'][t]:,.3f}",
            *(f"{summary[k][t]:.2f}" for k in ("surprise", "nll", "entropy")),
        )
        for verdict, moments in (("surprised", wrong), ("unsure", unsure))
        for t in moments[:_SHOWN]
    ]
    heads = ("the model was", "frame", "second", "surprise", "NLL", "entropy")
    tell(
        f"{found.video.name}, {summary['frames']} frames; moments where the model was sure and wrong: {len(wrong)}, "
        f"unsure: {len(unsure)}"
    )
    if rows:
        print_table(heads, rows)
    if found.taken is not None:
        said = [f"frame {t} {words}" for t in range(len(found.tokens)) if (words := found.action_words(t))]
        tell("\n".join(said) or "every frame looks like the result of its action")
    say(f"ordinary is what was measured on {summary['baseline']}, {summary['baseline_frames']} frames")
    for head in heads:
        if head in SURPRISE:
            say(f"  {head:<13} {SURPRISE[head]}")


def _frames_bar(items: Iterator[Any], total: int) -> Iterator[Any]:
    return track(items, lambda item: (item[0] / total, f"frame {item[0]} of {total}"))
