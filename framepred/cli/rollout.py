"""`framepred rollout`: how a video goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import duration, print_json, print_table, say, track
from framepred.cli.group import cli


@cli.command()
@options.VIDEO
@options.MODEL
@options.out(".mp4, .gif, .webp or .npz.  [default: NAME-rollout.mp4 here]")
@click.option("--context", default=4, show_default=True, help="Frames that are given.")
@click.option("--horizon", default=16, show_default=True, help="Frames to predict.")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="First context frame in the video.")
@options.ACTIONS
@click.option("--prompt", metavar="TEXT", help="Words before the frames, for a run that knows text.")
@click.option("--samples", type=int, help="Different futures, side by side.  [default: 1]")
@click.option("--ensemble", type=int, help="Show the mean picture of so many futures: blurred where they differ.")
@click.option("--temperature", type=float, help="0 is greedy.  [default: the run's own]")
@click.option("--top-k", default=0, show_default=True, help="Draw from the k likeliest tokens; 0 is all.")
@click.option("--top-p", default=1.0, show_default=True, help="Draw from the likeliest tokens that make up this mass.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same video.")
@click.option(
    "--decoder",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "speculative", "sequential"]),
    help="They give the same tokens.",
)
@click.option(
    "--engine",
    default="framepred",
    show_default=True,
    type=click.Choice(["framepred", "transformers", "llama.cpp", "vllm"]),
    help="What runs the Llama; greedy, they give the same frames.",
)
@click.option("--server", metavar="URL", help="Address of the vLLM server.  [default: http://localhost:8000]")
@options.DEVICE
@options.OVERWRITE
@options.JSON
def rollout(video: Path, out: Path | None, overwrite: bool, as_json: bool, **values: Any) -> None:
    """Predict how a video goes on, and score it where the video itself goes on."""
    from framepred.evaluation.forecast import Forecast, make_forecast, write_forecast

    out = out or Path(f"{video.stem}-rollout.mp4")
    options.check_video_output(out, overwrite)
    forecast: Forecast = make_forecast(video, watch=_frames_bar(values["horizon"]), **values)
    write_forecast(forecast, out)
    summary = forecast.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    if forecast.scores is not None:
        mean = summary["mean"]
        drawn = f"model, mean of {forecast.ensemble} futures" if forecast.ensemble > 1 else "model, one future"
        labels = {"model": drawn, "copy_last": "copy last frame", "ceiling": "tokenizer ceiling"}
        columns = (("psnr", 2), ("ssim", 4), ("sharpness", 2), ("motion_ratio", 2), ("frozen", 2))
        rows = [
            (label, *("-" if (v := mean[row][name]) is None else f"{v:.{digits}f}" for name, digits in columns))
            for row, label in labels.items()
        ]
        count = len(summary["psnr"]["model"])
        print_table(
            ("", "PSNR dB", "SSIM", "sharpness", "motion ratio", "frozen"),
            rows,
            f"{video.name}: {count} predicted frames, motion {summary['motion']:.4f}",
        )
    else:
        say("the video ends with the context: nothing to score against")
    rate, took = summary["tokens_per_second"], duration(summary["seconds"])
    say(f"{summary['forward_passes']} passes, {rate:.0f} tokens/s, {took}")
    click.echo(str(out))


def _frames_bar(horizon: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    count = iter(range(1, horizon + 1))
    return lambda frames: track(frames, lambda _: ((n := next(count)) / horizon, f"frame {n} of {horizon}"))
