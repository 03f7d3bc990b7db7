"""`framepred caption`: what frames show, in words."""

from pathlib import Path
from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli


@cli.command()
@options.VIDEO
@click.option("--model", required=True, help="Run that knows text: folder, name in the zoo, or hf://OWNER/NAME.")
@click.option("--context", type=click.IntRange(1), help="Frames that are shown.  [default: the run's window]")
@click.option("--start", default=0, show_default=True, type=click.IntRange(0), help="First of them in the video.")
@options.ACTIONS
@click.option("--samples", default=1, show_default=True, type=click.IntRange(1), help="Different captions.")
@click.option("--tokens", default=48, show_default=True, type=click.IntRange(1), help="Most tokens of a caption.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same words.")
@options.DEVICE
@options.JSON
def caption(video: Path, as_json: bool, **values: Any) -> None:
    """Say in words what frames show, by the weights that predict how they go on."""
    from framepred.llm.caption import caption_video

    told = caption_video(video, **values)
    if as_json:
        print_json(told)
        return
    for text in told["captions"]:
        click.echo(text)
