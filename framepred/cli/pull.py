"""`framepred pull`: a run or tokenizer from the Hugging Face Hub."""

from pathlib import Path

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli
from framepred.io.atomic import writing_folder
from framepred.io.outputs import check_replaceable


@cli.command()
@click.argument("address", metavar="hf://OWNER/NAME")
@options.out("Folder to write.", required=True)
@options.OVERWRITE
@options.JSON
def pull(address: str, out: Path, overwrite: bool, as_json: bool) -> None:
    """Download a run or tokenizer from the Hugging Face Hub.

    Everything that takes a run takes hf://OWNER/NAME as well; this makes a copy of one's own.

    \b
    Examples:
      framepred pull hf://me/my-world -o run
    """
    from framepred.engines.publish import download

    options.check_output(out, overwrite)
    check_replaceable(out)
    with writing_folder(out) as folder:
        facts = download(address, folder) | {"path": str(out)}
    if as_json:
        print_json(facts)
    else:
        click.echo(f"{out}: a {facts['kind']}")
