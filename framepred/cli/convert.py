"""`framepred convert`: a source → a LeRobot dataset or a video folder."""

from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import consume, print_json
from framepred.cli.group import cli
from framepred.errors import FramepredError


@cli.command()
@options.SOURCES
@options.out("Folder of the dataset, which must not exist.", required=True)
@click.option("--to", "form", required=True, type=click.Choice(["lerobot", "folder"]), help="What is written.")
@options.CODEC
@options.JSON
def convert(sources: tuple[str, ...], out: Path, form: str, codec: str, as_json: bool) -> None:
    """Write episodes of any SOURCE as a LeRobot dataset (v3.0), or as a folder of videos with actions.

    Frames come back as they were with --codec lossless; h264 and av1 change them a little.

    \b
    Examples:
      framepred convert videos/ -o set --to lerobot
      framepred convert lerobot:hf://OWNER/NAME --camera top -o videos --to folder
    """
    from framepred.sources.find import find_episodes
    from framepred.sources.folder_write import write_folder
    from framepred.sources.lerobot_write import write_lerobot

    if out.exists():
        raise FramepredError(f"{out} exists already: give another -o")
    options.check_output(out, False)
    episodes = find_episodes(sources)
    consume((write_lerobot if form == "lerobot" else write_folder)(episodes, out, codec))
    if as_json:
        print_json({"path": str(out), "episodes": len(episodes), "format": form, "codec": codec})
    else:
        click.echo(f"{out}: {len(episodes)} episodes")
