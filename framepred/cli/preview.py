"""`framepred preview`: a few episodes of a source with their actions, as a page."""

from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json, warn
from framepred.cli.group import cli


@cli.command()
@options.SOURCES
@options.out("HTML page.", required=True)
@click.option("--episodes", default=4, show_default=True, type=click.IntRange(1, 100), help="Episodes that are shown.")
@click.option("--frames", default=48, show_default=True, type=click.IntRange(2, 400), help="Frames of each.")
@options.OVERWRITE
@options.JSON
def preview(sources: tuple[str, ...], out: Path, episodes: int, frames: int, overwrite: bool, as_json: bool) -> None:
    """Show a few episodes with their actions under the frames, before anything is trained on them.

    A warning says where actions seem to be shifted: where they explain the motion of an earlier or a later
    frame clearly better than that of their own.

    \b
    Examples:
      framepred preview videos/ -o page.html
      framepred preview lerobot:hf://OWNER/NAME --camera top -o page.html
    """
    from framepred.evaluation.preview import Preview, write_preview
    from framepred.sources.find import find_episodes

    found = find_episodes(sources)
    options.check_file_output(out, overwrite, *(file for e in found for file in (e.where, e.actions_from)))
    made = consume(write_preview(found, out, episodes, frames))
    assert isinstance(made, Preview)
    if made.alignment and made.alignment.warning:
        warn(f"warning: {made.alignment.warning}")
    if as_json:
        print_json({"path": str(out)} | made.to_json())
    else:
        click.echo(str(out))
