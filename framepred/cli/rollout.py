"""`framepred rollout`: how a video goes on."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import duration, print_json, print_table, say, say_next, tell, track
from framepred.cli.group import cli
from framepred.cli.scores import say_words


@cli.command(
    sections={
        "What is predicted": ("context", "horizon", "start", "actions", "prompt", "samples", "ensemble"),
        "How it is drawn": ("temperature", "top_k", "top_p", "seed"),
        "What runs it": ("decoder", "engine", "server"),
    }
)
@options.VIDEO
@options.MODEL
@options.out(".mp4, .gif, .webp or .npz.  [default: NAME-rollout.mp4 here, numbered]")
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
    """Predict how a video goes on, and score it where the video itself goes on.

    \b
    Examples:
      # the model that comes along
      framepred rollout clip.mp4
      # your own
      framepred rollout clip.mp4 --model run -o future.gif
      # four futures, told no actions
      framepred rollout clip.mp4 --samples 4 --actions none
    """
    from framepred.evaluation.forecast import Forecast, make_forecast, write_forecast
    from framepred.sources.find import source_of

    default = Path(f"{video.stem}-rollout.mp4")
    out = out or (default if overwrite else options.numbered(default))
    options.check_video_output(out, overwrite, video, values["actions"])
    forecast: Forecast = make_forecast(video, watch=_frames_bar(values["horizon"]), **values)
    write_forecast(forecast, out)
    summary = forecast.summary() | {"output": str(out)}
    if as_json:
        print_json(summary)
        return
    if forecast.scores is not None:
        _show_scores(video.name, summary)
    else:
        say("the video ends with the context: nothing to score against")
    rate, took = summary["tokens_per_second"], duration(summary["seconds"])
    say(f"{summary['forward_passes']} passes of the model, {rate:.0f} tokens/s, {took}")
    click.echo(str(out))
    say_next("eval", source_of(video), "--model", values["model"])


def _show_scores(name: str, summary: dict[str, Any]) -> None:
    """Write the table of a clip, and say whether the prediction is better than copying there."""
    mean, gain = summary["mean"], summary["over_copying"]
    drawn = "one future" if summary["samples"] == 1 else f"{summary['samples']} futures, the mean of their scores"
    drawn = f"mean of {summary['ensemble']} futures" if summary["ensemble"] > 1 else drawn
    labels = {"model": f"model, {drawn}", "copy_last": "copy last frame", "ceiling": "tokenizer ceiling"}
    columns = (
        ("psnr", "PSNR dB", 2), ("ssim", "SSIM", 4), ("sharpness", "sharpness", 2),
        ("motion_ratio", "motion ratio", 2), ("frozen", "frozen", 2),
    )  # fmt: skip
    rows = [
        (label, *("-" if (v := mean[row][measure]) is None else f"{v:.{digits}f}" for measure, _, digits in columns))
        for row, label in labels.items()
    ]
    heads = [head for _, head, _ in columns]
    count = len(summary["psnr"]["model"])
    print_table(
        ["", *heads],
        rows,
        f"{name}: {count} predicted frames, in which a pixel moves by {summary['motion']:.2%} a frame",
    )
    if gain > 0:
        tell(f"The prediction is {gain:.2f} dB better than copying the last frame on this clip.")
    else:
        beaten = mean["ceiling"]["psnr"] < mean["copy_last"]["psnr"]
        why = "too little training, or on other videos"
        if beaten:
            why = "so is the tokenizer ceiling: little moves here, or such pictures are new to the tokenizer"
        tell(f"The prediction is {-gain:.2f} dB worse than copying the last frame on this clip ({why}).")
    say_words(heads)


def _frames_bar(horizon: int) -> Callable[[Iterator[Any]], Iterator[Any]]:
    count = iter(range(1, horizon + 1))
    return lambda frames: track(frames, lambda _: ((n := next(count)) / horizon, f"frame {n} of {horizon}"))
