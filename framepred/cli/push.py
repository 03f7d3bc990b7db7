"""`framepred push`: a run to the Hugging Face Hub."""

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli


@cli.command()
@click.argument("run")
@click.argument("address", metavar="hf://OWNER/NAME")
@click.option("--private", is_flag=True, help="Make the repository private, if it is made.")
@options.JSON
def push(run: str, address: str, private: bool, as_json: bool) -> None:
    """Upload a run to the Hugging Face Hub, with a model card.

    \b
    Examples:
      framepred push run hf://me/my-world --private
    """
    from framepred.engines.publish import push as run_push

    page = run_push(run, address, private)
    if as_json:
        print_json({"path": address, "page": page})
    else:
        click.echo(f"{page}: framepred rollout VIDEO --model {address}")
