"""`framepred caption`: captions of a video."""

from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli


@cli.command()
@options.VIDEO
@click.option("--model", required=True, help="Run that knows text: folder, name in the zoo, or hf://OWNER/NAME.")
@click.option("--context", type=click.IntRange(1), help="Frames that are captioned.  [default: the run's window]")
@click.option(
    "--start", default=0, show_default=True, type=click.IntRange(0), help="The first of these frames in the video."
)
@options.ACTIONS
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1), help="How many captions.")
@click.option("--tokens", default=48, show_default=True, type=click.IntRange(1), help="Most tokens of a caption.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same captions.")
@options.DEVICE
@options.JSON
def caption(video: Path, as_json: bool, **values: Any) -> None:
    """Caption frames of a video, by the weights that also predict the next frames.

    \b
    Examples:
      framepred caption clip.mp4 --model run --context 8
    """
    from framepred.llm.caption import caption_video

    result = caption_video(video, **values)
    if as_json:
        print_json(result)
        return
    for text in result["captions"]:
        click.echo(text)
